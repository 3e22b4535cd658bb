"""A run as a file: JSON, Markdown, a Chrome trace, or a page that replays it without a server.

The same files as the page at `/` saves.
"""

from plato.exports.chrome_trace import to_chrome_trace
from plato.exports.markdown import to_markdown
from plato.exports.page import to_page
from plato.exports.recording import Recording

__all__ = ["Recording", "to_chrome_trace", "to_markdown", "to_page"]
