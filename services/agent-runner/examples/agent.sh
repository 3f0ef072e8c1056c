#!/bin/sh
# A backend for Creel in plain shell: answers with the message and the number of its turn's events.
#
# creel.toml:
#     [backends.shell]
#     kind = "command"
#     argv = ["sh", "/path/to/agent.sh"]
#     read = ["/path/to"]
#
# The input is one line that starts with {"type":"turn","text":"…". The text is JSON already, so it goes
# into the answer as it is, without being unescaped and escaped again.
IFS= read -r turn || exit 2
text=$(printf '%s\n' "$turn" | sed -nE 's/^\{"type":"turn","text":"(([^"\\]|\\.)*)".*/\1/p')
events=$(printf '%s\n' "$turn" | grep -o '"topic":' | wc -l)

printf '{"type":"delta","text":"you said: "}\n'
printf '{"type":"delta","text":"%s"}\n' "$text"
printf '{"type":"final","text":"you said: %s (%d events)"}\n' "$text" "$events"
