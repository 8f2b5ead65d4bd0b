"""A CelebA-layout tree of faces: read back as CelebA is, with the labels, splits and faces that were drawn."""

import json
from pathlib import Path

import pytest
import torch

from civae_core.data import PreparedData
from civae_core.data.images import load_photo
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.resolve import SourceOptions, open_source
from civae_core.errors import DataError, UsageError
from civae_core.synthetic import ATTRIBUTES, FaceProcess
from civae_core.synthetic.celeba_tree import COLUMNS, CelebaTree, write_celeba_tree
from civae_core.synthetic.cohorts import people, split_sizes
from civae_core.synthetic.portraits import render_portraits

COUNT, SEED = 20, 3


def write(folder: Path, count: int = COUNT, overwrite: bool = False) -> CelebaTree:
    return write_celeba_tree(folder, count=count, seed=SEED, overlap=0.5, overwrite=overwrite)


def times(tree: Path) -> dict[str, int]:
    return {str(p.relative_to(tree)): p.stat().st_mtime_ns for p in tree.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only to be read."""
    folder = tmp_path_factory.mktemp("tree") / "faces"
    assert write(folder) == CelebaTree(COUNT, {"train": 16, "valid": 2, "test": 2}, fresh=True)
    return folder


@pytest.fixture(scope="module")
def data(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The tree prepared by prepare-data, at the size of its crop."""
    out = tmp_path_factory.mktemp("prepared") / "tree"
    return prepare(
        open_source(str(tree), SourceOptions(size=150)), out, workers=1, max_bad=MaxBad.parse("0")
    ).data


def test_the_lists_are_as_celebas(tree: Path) -> None:
    labels = (tree / "list_attr_celeba.txt").read_text().splitlines()
    assert labels[0] == str(COUNT) and tuple(labels[1].split()) == COLUMNS
    assert len(labels) == COUNT + 2 and labels[2].startswith("000001.jpg ")
    assert {cell for row in labels[2:] for cell in row.split()[1:]} == {"-1", "1"}
    partition = (tree / "list_eval_partition.txt").read_text().splitlines()
    assert (partition[0], partition[-1]) == ("000001.jpg 0", "000020.jpg 2")


def test_prepare_data_reads_the_labels_back(data: PreparedData) -> None:
    assert data.name == "CelebA" and data.preprocessing["crop"] == 150
    assert tuple(a.name for a in data.attributes) == COLUMNS
    assert [len(data.rows(split)) for split in ("train", "valid", "test")] == [16, 2, 2]
    drawn = people(FaceProcess(overlap=0.5, seed=SEED), range(COUNT), 16)
    binary = [i for i, attribute in enumerate(ATTRIBUTES) if attribute.kind == "binary"]
    assert torch.equal(data.table_NA, drawn.attributes_NA[:, binary])


def test_its_labels_are_those_of_the_synthetic_source(data: PreparedData) -> None:
    source = open_source("synthetic:faces", SourceOptions(size=32, count=COUNT, seed=SEED))
    kept = [source.table.names.index(name) for name in COLUMNS]
    assert data.table_NA.tolist() == source.table.values_NA[:, kept].tolist()


def test_the_pictures_are_the_portraits(tree: Path, data: PreparedData) -> None:
    drawn = render_portraits(people(FaceProcess(overlap=0.5, seed=SEED), range(COUNT), 16)[:4]).float()
    whole = load_photo(tree / "img_align_celeba" / "000001.jpg", {"size": 178, "channels": 3})
    assert (whole.float() - drawn[0, :, 20:198]).abs().mean() < 3, "JPEG at quality 95 alone"
    cropped = data.images(torch.arange(4)).float()

    def distance(top: int, left: int) -> torch.Tensor:
        return (cropped - drawn[:, :, top : top + 150, left : left + 150]).abs().mean()

    assert distance(34, 14) < 3
    assert all(
        distance(34, 14) < 0.7 * distance(*other) for other in ((33, 14), (35, 14), (34, 13), (34, 15))
    )


def test_eyes_are_where_celebas_are() -> None:
    """In CelebA's aligned images they are at (69, 111) and (109, 111) on average, rounded."""
    subjects = FaceProcess(seed=SEED).subjects(0, 64)
    portraits = render_portraits(subjects)
    assert portraits.shape == (64, 3, 218, 178) and portraits.dtype == torch.uint8
    irises_NHW = (portraits != render_portraits(subjects.under({"Blue_Eyes": "flip"}))).any(dim=1)
    _, rows, columns = irises_NHW.nonzero().float().T
    for side, expected in ((columns < 89, 69), (columns > 89, 109)):
        assert abs(columns[side].mean() - expected) < 2
        assert abs(rows[side].mean() - 111) < 3


def test_a_portrait_is_the_same_alone_and_in_any_batch() -> None:
    subjects = FaceProcess(seed=SEED).subjects(0, 12)
    assert torch.equal(render_portraits(subjects)[10:11], render_portraits(subjects[10:11]))


def test_backdrop_goes_on_above_the_face_without_a_seam() -> None:
    portraits = render_portraits(FaceProcess(seed=SEED).subjects(0, 32)).float()
    steps = (portraits[:, :, 1:24] - portraits[:, :, :23]).mean(dim=(1, 3)).abs()
    assert steps[:, 17].mean() < 1.5 * steps.mean() + 0.1


def test_a_finished_tree_is_left_alone(tree: Path) -> None:
    before = times(tree)
    assert not write(tree).fresh
    assert times(tree) == before


def test_an_interrupted_tree_is_not_taken_for_whole_and_is_completed(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    write(folder)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba/000007.jpg"):
        (folder / name).unlink()
    (folder / "img_align_celeba" / ".000007.jpg.abc.tmp").write_bytes(b"half")
    with pytest.raises(DataError, match="no list_attr_celeba"):
        open_source(str(folder), SourceOptions())
    kept = times(folder)
    assert write(folder).fresh
    done = times(folder)
    redone = {name for name, written in done.items() if kept.get(name) != written}
    assert redone == {
        "faces.json",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
        "img_align_celeba/000007.jpg",
    }
    assert done.keys() == times(tree).keys()
    assert all((folder / name).read_bytes() == (tree / name).read_bytes() for name in done)


def test_other_faces_are_only_replaced_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    write(folder, count=12)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds other faces"):
        write(folder, count=10)
    assert write(folder, count=10, overwrite=True).fresh
    assert len(list((folder / "img_align_celeba").iterdir())) == 10
    assert json.loads((folder / "faces.json").read_text())["count"] == 10
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "faces.json").write_text('{"name": "somebody else\'s"}')
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not empty"):
            write(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["faces.json"]


def test_too_few_faces_and_impossible_overlaps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--n 9 is too few"):
        split_sizes(9)
    with pytest.raises(UsageError, match="--overlap 0 is outside"):
        write_celeba_tree(tmp_path / "faces", count=10, seed=0, overlap=0)
    assert not (tmp_path / "faces").exists()
