#!/usr/bin/env bash
# curl: the API as it is, with and without a model, streamed, and as a run.
set -euo pipefail

URL=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
QUESTION='"messages": [{"role": "user", "content": "How do I choose my first road bicycle?"}]'
SCHEMA='{"type": "object", "additionalProperties": false, "required": ["kind", "price"], "properties":
  {"kind": {"enum": ["road", "mountain", "city"]}, "price": {"type": "integer", "minimum": 100, "maximum": 9999}}}'

ask() { curl --fail-with-body -sSN "$URL/$1" -H 'Content-Type: application/json' -H 'Authorization: Bearer any' "${@:2}"; }

echo '--- models'
ask models

echo; echo '--- ask, without a model'
ask chat/completions -d "{$QUESTION, \"max_tokens\": 60}"

echo; echo '--- ask, with a slash behind the path'
ask chat/completions/ -d "{$QUESTION, \"max_tokens\": 60}"

echo; echo '--- stream'
ask chat/completions -d "{$QUESTION, \"max_tokens\": 20, \"stream\": true}"

echo '--- plan'
ask chat/completions -d "{$QUESTION, \"max_tokens\": 150, \"plato\": {\"mode\": \"plato\", \"headings\": true}}"

echo; echo '--- structured answer'
ask chat/completions -d "{$QUESTION, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"bicycle\", \"schema\": $SCHEMA}}}"

echo; echo '--- tool demanded'
ask chat/completions -d "{$QUESTION, \"tool_choice\": \"required\", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"order\", \"parameters\": $SCHEMA}}]}"

echo; echo '--- background: a run, its events, and what it has become'
run=$(ask runs -d "{$QUESTION, \"max_tokens\": 60}" | sed 's/.*"id":"\([^"]*\)".*/\1/')
ask "runs/$run/events" | tail -n 3
ask "runs/$run"

echo; echo '--- HEAD and OPTIONS'
curl -sS --head "$URL/models"
curl -sS -i -X OPTIONS "$URL/chat/completions"
