"""Small chat templates with the traits of well-known families."""

LLAMA_3 = """\
{{- '<|im_start|>' -}}
{%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] | trim -%}
{%- set messages = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- endif -%}
{{- 'system\\nToday Date: ' + date_string + '\\n' + system + '<|im_end|>' -}}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""A date in front of everything; contents are trimmed."""

QWEN_3 = """\
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'assistant' and '</think>' in content -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if message['role'] == 'assistant' and loop.index0 > ns.last -%}
{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + content + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""
"""Takes the thinking out of old turns, and opens a turn with empty thinking."""

GEMMA = """\
{{- '<|endoftext|>' -}}
{%- if messages[0]['role'] == 'system' -%}
{{- raise_exception('System role not supported') -}}
{%- endif -%}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<|im_start|>' + role + '\\n' + message['content'] | trim + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>model\\n' -}}{%- endif -%}
"""
"""No system role; roles must alternate; contents are trimmed."""

MISTRAL = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
{{- '<|endoftext|>' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{%- if loop.last and system is defined -%}
{{- '<|im_start|>' + system + '\\n\\n' + message['content'] + '<|im_start|>' -}}
{%- else -%}
{{- '<|im_start|>' + message['content'] + '<|im_start|>' -}}
{%- endif -%}
{%- else -%}
{{- ' ' + message['content'] + '<|im_end|>' -}}
{%- endif -%}
{%- endfor -%}
"""
"""The system message stands in front of the last question; an answer begins with a space."""

BARE = "{%- for message in messages -%}{{- message['content'] + '<|im_end|>' -}}{%- endfor -%}"
"""No markup in front of a message."""
