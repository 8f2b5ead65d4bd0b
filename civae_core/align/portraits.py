"""Prepare photographs with faces anywhere as CelebA's portraits are: every face in the same place."""

import functools
from dataclasses import replace

from civae_core.align.aligner import Aligner
from civae_core.celeba import WIDTH
from civae_core.data.images import Preprocessing
from civae_core.data.resize import Square
from civae_core.data.sources.base import FileReader, Source
from civae_core.data.sources.celeba import CROP
from civae_core.errors import UsageError


def as_portraits(source: Source) -> Source:
    """The same images, each cropped so that its largest face lies as in CelebA; those without a face are left out.

    A model trained on them counts as trained on portraits: faces are looked for in every picture it is asked about.

    Raises:
        UsageError: the extra `align` is not installed, or the source is not an image folder of photographs.
    """
    reader = source.reader
    if source.identity["kind"] != "folder" or not isinstance(reader, FileReader):
        raise UsageError(
            f"--align has no effect here: the faces of {source.name} are already aligned",
            hint="omit --align",
        )
    before = source.preprocessing
    shape = replace(before, crop=before.crop or CROP, crop_of=WIDTH)
    _aligner(shape)  # raises before anything is written if the extra is missing
    return replace(
        source,
        identity=source.identity | {"aligned": True},
        preprocessing=shape,
        reader=replace(reader, preprocessing=shape, show=largest_face),
    )


def largest_face(content: bytes, preprocessing: Preprocessing) -> Square:
    """A photograph's largest face at its final size, rotated, scaled and moved to where CelebA's faces are.

    Raises:
        DataError: there is no face, or the photograph cannot be read.
    """
    (view,) = _aligner(preprocessing).views(content)
    return Square(view.pixels_CHW.transpose(1, 2, 0), 0, 0, preprocessing.size)


@functools.lru_cache(maxsize=2)
def _aligner(preprocessing: Preprocessing) -> Aligner:
    return Aligner(preprocessing, "largest", only_where_needed=False)  # loads its networks once per process
