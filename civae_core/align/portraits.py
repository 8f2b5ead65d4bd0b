"""Photographs of faces anywhere, prepared as CelebA's portraits are: every face in one place."""

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
    """The same images, each cut to its largest face as it would lie in CelebA; those without a face are left out.

    A model that is trained on them counts as one of portraits: faces are looked for in whatever it is asked about.

    Raises:
        UsageError: the extra `align` is not installed, or these are no photographs of an image folder.
    """
    reader = source.reader
    if source.identity["kind"] != "folder" or not isinstance(reader, FileReader):
        raise UsageError(
            f"--align has no effect here: the faces of {source.name} are already aligned",
            hint="omit --align",
        )
    before = source.preprocessing
    shape = replace(before, crop=before.crop or CROP, crop_of=WIDTH)
    _aligner(shape)  # says what is missing before anything is written
    return replace(
        source,
        identity=source.identity | {"aligned": True},
        preprocessing=shape,
        reader=replace(reader, preprocessing=shape, show=largest_face),
    )


def largest_face(content: bytes, preprocessing: Preprocessing) -> Square:
    """A photograph's largest face in its final size, turned, scaled and moved to where CelebA's are.

    Raises:
        DataError: no face, or no photograph that can be read in full size.
    """
    (view,) = _aligner(preprocessing).views(content)
    return Square(view.pixels_CHW.transpose(1, 2, 0), 0, 0, preprocessing.size)


@functools.lru_cache(maxsize=2)
def _aligner(preprocessing: Preprocessing) -> Aligner:
    return Aligner(
        preprocessing, "largest", only_where_needed=False
    )  # its networks are read once in each process
