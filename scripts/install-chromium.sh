#!/bin/sh
# Chromium for the tests of the HTML pages, from the system's packages. Without it they are skipped.
set -u
if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } >/dev/null && exit 0
fi
echo "warning: Chromium is not installed: the tests of the HTML pages are skipped" >&2
