#!/usr/bin/env bash
# An edit with a mask by curl: only what is transparent in the mask is changed. Prints the reply.
#
# Run:  ./edit_with_mask.sh room.png mask.png "A cat on the sofa"
#
# Gateway and model come from IMAGEGATE_URL and IMAGEGATE_MODEL. With  -H 'Imagegate-Explain: ?1'  behind the three
# arguments the gateway shows what it would send, and sends nothing.
set -euo pipefail
image=$1 mask=$2 prompt=$3
curl --silent --show-error --fail-with-body "${IMAGEGATE_URL:-http://127.0.0.1:8000}/v1/images/edits" \
    -H "Authorization: Bearer ${IMAGEGATE_KEY:-not-needed}" \
    -F "model=${IMAGEGATE_MODEL:-gpt-image-2}" \
    --form-string "prompt=$prompt" \
    -F response_format=url \
    -F "image=@$image" \
    -F "mask=@$mask" \
    "${@:4}"
echo
