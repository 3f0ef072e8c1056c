#!/bin/sh
# Installs the published grpcurl into the directory named, with Go. Without Go the tests that need it say
# that they are skipped.
set -eu
dir="$1"
[ -x "$dir/grpcurl" ] && exit 0
if ! command -v go >/dev/null 2>&1; then
    echo "tools: no go, so no grpcurl: the tests that drive it will be SKIPPED" >&2
    exit 0
fi
mkdir -p "$dir"
echo "tools: installing grpcurl"
GOBIN="$dir" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest
