#!/bin/sh
# An agent in shell: it tells what this machine knows about itself.
#
#     examples/shell/agent.sh [--root DIR | --name NAME]
#
# `axon answer` runs a program once for each request. Here that program is this same script: without AXON_ID
# it is the one that you started, with AXON_ID it has been started to answer. AXON names the axon program,
# where it is not on the path.
set -eu

if [ -z "${AXON_ID:-}" ]; then
    exec "${AXON:-axon}" "$@" answer --text --domain machine --concurrency 4 --timeout 10 -- sh "$0"
fi

# With --text, standard input is the question of a query or the task of a delegation.
question=$(cat)

# The text comes from somebody else: it is only compared, never run.
case $question in
*[Tt]ime*)
    date -u '+It is %H:%M UTC.'
    ;;
*[Dd]isk*)
    # A JSON object is the answer's whole payload.
    df -Pk / | awk 'NR == 2 {
        printf "{\"summary\":\"%d MiB are free.\",\"data\":{\"free_kib\":%s}}\n", $4 / 1024, $4
    }'
    ;;
*[Ff]rom*)
    echo "You are $AXON_FROM, and this is a $AXON_KIND."
    ;;
*)
    # Any other exit than 0 is an error, and says what stands on standard error.
    echo "ask for the time, the disk, or whom you come from" >&2
    exit 1
    ;;
esac
