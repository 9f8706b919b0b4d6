#!/bin/sh
# Print the path of a working Python of the version given (`3.8`), or fail.
# PYTHON38=/path names one; pyenv's shims exist even where they do not work, so each is tried.
version=$1
named=$(eval "printf '%s' \"\${PYTHON$(echo "$version" | tr -d .)-}\"")
for candidate in "$named" "python$version" "$HOME/.pyenv/versions/$version".*/bin/python; do
  [ -n "$candidate" ] || continue
  if found=$("$candidate" -c 'import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    case $found in
      *" $version") echo "${found% *}"; exit 0 ;;
    esac
  fi
done
exit 1
