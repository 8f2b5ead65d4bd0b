"""A scorer's quality as a table for the terminal."""

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from civae_core.errors import escaped
from civae_core.yardstick.instrument import YardstickCard

ABSENT = "–"


def quality_table(card: YardstickCard) -> Table:
    """One row per attribute; columns for photographs, blurred photographs and each model's reconstructions.

    Cells show accuracy and AUC of a binary attribute, R² of a continuous one.
    """
    table = Table(
        title=Text(f"scorer of {escaped(card.data['name'])}, {_count(card)} held-out images"),
        title_justify="left",
        caption="share read correctly · AUC; of a continuous attribute R²\n"
        "worst group: smallest share within one label and treatment arm",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    others = {"blurred": card.blurred, **card.reconstructions}
    for name in ("attribute", "photos", "worst group", *others):
        table.add_column(
            Text(escaped(name)), justify="left" if name == "attribute" else "right", overflow="fold"
        )
    for attribute in card.attributes:
        on_photos, *elsewhere = [q.get(attribute.name, {}) for q in (card.photos, *others.values())]
        worst = on_photos.get("worst_group_accuracy")
        cells = [
            quality_text(on_photos),
            ABSENT if worst is None else f"{worst:.1%}",
            *map(quality_text, elsewhere),
        ]
        table.add_row(Text(attribute.name), *cells)
    return table


def quality_text(found: Mapping[str, float]) -> str:
    """`97.0% · 0.990` (accuracy and AUC) for a binary attribute, `R² 0.900` for a continuous one."""
    if "accuracy" in found:
        area = f" · {found['auc']:.3f}" if "auc" in found else ""
        return f"{found['accuracy']:.1%}{area}"
    return f"R² {found['r2']:.3f}" if "r2" in found else ABSENT


def _count(card: YardstickCard) -> str:
    return f"{max((int(found['n']) for found in card.photos.values()), default=0):,}"
