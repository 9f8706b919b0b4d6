"""Options: declaration, composition of a command's options, and profiles.

`declaration` declares options, `parts` holds those that many commands share, `composition` and
`owners` combine them with those that plugins declare, `building` builds options from user input.
"""
