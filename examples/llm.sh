#!/usr/bin/env bash
# `llm`, Simon Willison's command line: the server is one of its "extra" OpenAI models.
set -euo pipefail

LLM_USER_PATH=$(mktemp -d)
export LLM_USER_PATH
trap 'rm -r "$LLM_USER_PATH"' EXIT
# A server with keys needs an api_key_name in both lines, and `llm keys set` that name.
MODEL=${PLATO_MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- {model_id: plato, model_name: "$MODEL:plato", api_base: "${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}"}
- {model_id: small, model_name: "$MODEL", api_base: "${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}", supports_schema: true, supports_tools: true}
YAML
QUESTION='How do I choose my first road bicycle?'

echo '--- ask'
llm -m small --no-stream -o max_tokens 100 "$QUESTION"

echo '--- stream'
llm -m small -o max_tokens 100 "$QUESTION"

echo '--- plan'
llm -m plato -o max_tokens 150 "$QUESTION"

echo '--- structured answer'
llm -m small --schema '{"type": "object", "additionalProperties": false, "required": ["kind"], "properties": {"kind": {"enum": ["road", "mountain", "city"]}}}' "$QUESTION"

echo '--- tools offered'
llm -m small -T llm_time -o max_tokens 100 "$QUESTION"
