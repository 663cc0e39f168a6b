"""What open_clip's weights were trained on and under which licence they are published, by architecture and tag.

From the model cards and papers, as of open_clip 3.3. The licence of a model card may change: it is the one that counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEE_CARD = "see model card"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from."""

    data: str = SEE_CARD
    """Pretraining data."""
    licence: str = SEE_CARD
    """Licence of the weights."""
    research_only: bool | None = None
    """Whether it excludes commercial use; None if it is not certain."""


_MIT, _APACHE = ("MIT", False), ("Apache-2.0", False)
_NON_COMMERCIAL = ("CC BY-NC 4.0", True)
_APPLE = (f"Apple, {SEE_CARD}", None)
_APPLE_RESEARCH = ("Apple AMLR, research only", True)

_RULES: tuple[tuple[str, str, str, tuple[str, bool | None]], ...] = (
    (r".*SigLIP2.*", r"webli", "WebLI, 109 languages", _APACHE),
    (r".*SigLIP-i18n.*", r"webli", "WebLI, multilingual", _APACHE),
    (r".*SigLIP.*", r"webli", "WebLI, English", _APACHE),
    (r"nllb-.*", r".*", "LAION-COCO, translated captions", _NON_COMMERCIAL),
    (r"PE-Core-.*", r"meta", "5.4 B image-text pairs; videos", _APACHE),
    (r".*CLIPA.*", r"datacomp1b", "DataComp-1B", _APACHE),
    (r".*CLIPA.*", r"laion2b", "LAION-2B", _APACHE),
    (r"ViTamin-.*", r"datacomp1b", "DataComp-1B", (SEE_CARD, None)),
    (r"MobileCLIP2-.*", r"dfndr2b", "DFNDR-2B", _APPLE_RESEARCH),
    (r"MobileCLIP-.*", r"datacompdr.*", "DataCompDR-1B", _APPLE_RESEARCH),
    (r".*", r"dfn2b.*", "DFN-2B", _APPLE),
    (r".*", r"dfn5b", "DFN-5B", _APPLE),
    (r".*", r"metaclip_400m", "MetaCLIP, 400 M pairs", _NON_COMMERCIAL),
    (r".*", r"metaclip_fullcc", "MetaCLIP, 2.5 B pairs", _NON_COMMERCIAL),
    (r".*", r"metaclip_altogether", "MetaCLIP, rewritten captions", _NON_COMMERCIAL),
    (r".*", r"metaclip2_worldwide", "MetaCLIP 2, worldwide", _NON_COMMERCIAL),
    (r".*", r"openai", "WIT-400M (not public)", _MIT),
    (r".*", r"laion400m.*", "LAION-400M", _MIT),
    (r".*", r"mscoco_finetuned_laion2b.*", "LAION-2B, then MS COCO", _MIT),
    (r".*", r"laion2b.*", "LAION-2B", _MIT),
    (r".*", r"(frozen_)?laion5b.*", "LAION-5B", _MIT),
    (r".*", r"laion_aesthetic.*", "LAION-Aesthetic", _MIT),
    (r"EVA.*", r"merged2b.*", "Merged-2B (LAION-2B, COYO)", _MIT),
    (r".*", r"datacomp_(xl|s34b).*", "DataComp-1B", _MIT),
    (r".*", r"datacomp_[lms]_.*", "DataComp, smaller scale", _MIT),
    (r".*", r"commonpool_.*", "CommonPool", _MIT),
    (r".*", r"yfcc15m", "YFCC-15M", _MIT),
    (r".*", r"cc12m", "CC-12M", _MIT),
)
"""Architecture, tag, pretraining data, licence; the first that fits holds."""


def provenance(architecture: str, tag: str) -> Provenance:
    """What is known of one of open_clip's own weights."""
    for of_architecture, of_tag, data, (licence, research_only) in _RULES:
        if re.fullmatch(of_architecture, architecture) and re.fullmatch(of_tag, tag):
            return Provenance(data=data, licence=licence, research_only=research_only)
    return Provenance()
