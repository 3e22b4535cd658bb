"""What to cite is the version that there is."""

from __future__ import annotations

import yaml

from plato import __version__
from tests.docs.pages import ROOT


def test_the_citation_has_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    (paper,) = citation["references"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2402.12280"}]
