"""Sources: CelebA in all its layouts, image folders, synthetic faces, and options that do not belong."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from civae_core.data.images import Preprocessing, decode
from civae_core.data.sources import base
from civae_core.data.sources import faces as faces_module
from civae_core.data.sources.base import FileReader, Source
from civae_core.data.sources.faces import FacesReader
from civae_core.data.sources.files import FolderFiles
from civae_core.data.sources.resolve import SourceOptions, open_source
from civae_core.errors import DataError, UsageError
from civae_core.synthetic import ATTRIBUTES, ROLES, FaceProcess
from civae_core.synthetic.cohorts import people
from civae_core.synthetic.process import Subjects

COUNT = 12
NAMES = [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]
IMAGES = "img_align_celeba"


def write_lists(folder: Path, form: str, positive: str = "1", negative: str = "-1") -> None:
    """The attribute list and the partition: Male for even numbers, Young for the first half."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = [
        (positive if n % 2 == 0 else negative, positive if n < COUNT / 2 else negative) for n in range(COUNT)
    ]
    parts = ["0" if n < 8 else "1" if n < 10 else "2" for n in range(COUNT)]
    if form == "txt":
        rows = "".join(f"{name} {a:>2} {b:>2}\r\n" for name, (a, b) in zip(NAMES, labels, strict=True))
        (folder / "list_attr_celeba.txt").write_text(f"{COUNT}\nMale Young \n{rows}")
        rows = "".join(f"{name} {part}\n" for name, part in zip(NAMES, parts, strict=True))
        (folder / "list_eval_partition.txt").write_text(rows)
    else:
        rows = "".join(f"{name},{a},{b}\n" for name, (a, b) in zip(NAMES, labels, strict=True))
        (folder / "list_attr_celeba.csv").write_text("image_id,Male,Young\n" + rows)
        rows = "".join(f"{name},{part}\n" for name, part in zip(NAMES, parts, strict=True))
        (folder / "list_eval_partition.csv").write_text("image_id,partition\n" + rows)


@pytest.fixture
def jpegs(image_folder: Callable[..., Path]) -> list[bytes]:
    folder = image_folder(COUNT, name="jpegs")
    return [(folder / f"{number:03d}.jpg").read_bytes() for number in range(COUNT)]


def write_images(folder: Path, jpegs: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for name, jpeg in zip(NAMES, jpegs, strict=True):
        (folder / name).write_bytes(jpeg)


def write_zip(path: Path, jpegs: list[bytes], prefix: str = IMAGES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, jpeg in zip(NAMES, jpegs, strict=True):
            archive.writestr(f"{prefix}/{name}", jpeg)


def layout(kind: str, root: Path, jpegs: list[bytes]) -> Path:
    """Writes one of the layouts in circulation; returns what the user would name."""
    if kind == "official":
        write_lists(root / "Anno", "txt")
        (root / "Eval").mkdir()
        shutil.move(root / "Anno" / "list_eval_partition.txt", root / "Eval")
        write_images(root / "Img" / IMAGES, jpegs)
    elif kind == "official, zipped":
        write_lists(root / "Anno", "txt")
        write_zip(root / "Img" / f"{IMAGES}.zip", jpegs)
    elif kind == "the images' zip":
        write_lists(root / "Anno", "txt")
        write_zip(root / "Img" / f"{IMAGES}.zip", jpegs)
        return root / "Img" / f"{IMAGES}.zip"
    elif kind == "flat, 0/1":
        write_lists(root, "txt", negative="0")
        write_images(root / IMAGES, jpegs)
    elif kind == "kaggle":
        write_lists(root, "csv")
        write_images(root / IMAGES / IMAGES, jpegs)
    else:
        write_lists(root, "csv")
        write_zip(root / "archive.zip", jpegs, f"{IMAGES}/{IMAGES}")
        with zipfile.ZipFile(root / "archive.zip", "a") as archive:
            for path in root.glob("*.csv"):
                archive.write(path, path.name)
                path.unlink()
        if kind == "kaggle's zip":
            return root / "archive.zip"
    return root


LAYOUTS = [
    "official",
    "official, zipped",
    "the images' zip",
    "flat, 0/1",
    "kaggle",
    "kaggle's zip",
    "folder of kaggle's zip",
]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_celeba_is_read_in_every_layout(kind: str, tmp_path: Path, jpegs: list[bytes]) -> None:
    source = open_source(str(layout(kind, tmp_path / "celeba", jpegs)), SourceOptions(size=8))
    assert source.name == "CelebA" and source.table.names == ("Male", "Young")
    assert source.table.file_names == NAMES
    assert source.table.values_NA[:, 0].tolist() == [1, 0] * (COUNT // 2)
    assert source.table.values_NA[:, 1].tolist() == [1] * 6 + [0] * 6
    assert source.splits_N.tolist() == [0] * 8 + [1] * 2 + [2] * 2
    assert (source.preprocessing.crop, source.preprocessing.crop_of) == (150, 178)
    batch = source.reader.read(range(3, 6))
    assert batch.kept.tolist() == [3, 4, 5] and batch.rejected == []
    np.testing.assert_array_equal(batch.images[1], decode(jpegs[4], source.preprocessing))


@pytest.mark.parametrize("kind", ["official, zipped", "folder of kaggle's zip"])
def test_what_macos_leaves_beside_and_in_a_zip_is_not_read(
    kind: str, tmp_path: Path, jpegs: list[bytes]
) -> None:
    root = layout(kind, tmp_path / "celeba", jpegs)
    (archive,) = root.rglob("*.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        for name in [f"__MACOSX/{IMAGES}/._{NAMES[0]}", "__MACOSX/._list_attr_celeba.csv"]:
            opened.writestr(name, b"\0\5\x16\7 Mac OS X")
    archive.with_name(f"._{archive.name}").write_bytes(b"\0\5\x16\7 Mac OS X")
    # Sorted first, so that whoever opens every zip meets it before the one that it stands beside.
    (archive.parent / f"._{IMAGES}.zip").write_bytes(b"\0\5\x16\7 Mac OS X")
    source = open_source(str(root), SourceOptions(size=8))
    assert source.reader.read(range(COUNT)).kept.tolist() == list(range(COUNT))


def test_celebas_crop_can_be_set(tmp_path: Path, jpegs: list[bytes]) -> None:
    root = layout("kaggle", tmp_path / "celeba", jpegs)
    assert open_source(str(root), SourceOptions(crop=178)).preprocessing.crop == 178


def test_a_missing_or_damaged_celeba_image_is_rejected_with_its_reason(
    tmp_path: Path, jpegs: list[bytes]
) -> None:
    root = layout("flat, 0/1", tmp_path / "celeba", jpegs)
    (root / IMAGES / NAMES[0]).unlink()
    (root / IMAGES / NAMES[2]).write_bytes(jpegs[2][:-300])
    batch = open_source(str(root), SourceOptions(size=8)).reader.read(range(4))
    assert batch.kept.tolist() == [1, 3] and len(batch.images) == 2
    reasons = dict(batch.rejected)
    assert reasons[0] == "the file is missing" and reasons[2].startswith("damaged image")


def test_pictures_of_many_sizes_and_bad_ones_keep_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    shapes = [(20, 30), (30, 20), (20, 30), None, (25, 25), (20, 30), (400, 300), None, (20, 30), (25, 25)]
    names = [f"{n}.png" for n in range(len(shapes))]
    for name, shape in zip(names, shapes, strict=True):
        if shape is not None:
            Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / name)
    reader = FileReader(FolderFiles(tmp_path), names, Preprocessing(size=8))
    good = [n for n, shape in enumerate(shapes) if shape is not None]
    expected = np.stack([decode(tmp_path / names[n], reader.preprocessing) for n in good])
    for together in (0, 4000, 10**6):
        monkeypatch.setattr(base, "_TOGETHER", together)
        batch = reader.read(range(len(shapes)))
        assert batch.kept.tolist() == good and [row for row, _ in batch.rejected] == [3, 7]
        np.testing.assert_array_equal(batch.images, expected)
    assert len(reader.read(range(3, 4)).images) == 0


def test_a_damaged_member_of_a_zip_is_rejected(tmp_path: Path, jpegs: list[bytes]) -> None:
    root = layout("official, zipped", tmp_path / "celeba", jpegs)
    archive = root / "Img" / f"{IMAGES}.zip"
    content = archive.read_bytes()
    place = content.index(jpegs[1]) + 100
    archive.write_bytes(content[:place] + b"\0\0\0\0" + content[place + 4 :])
    batch = open_source(str(root), SourceOptions(size=8)).reader.read(range(COUNT))
    assert [row for row, _ in batch.rejected] == [1] and "CRC" in batch.rejected[0][1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "list_attr_celeba.txt").unlink(), "no list_attr_celeba.txt or .csv"),
        (lambda root: (root / "list_eval_partition.txt").unlink(), "no list_eval_partition.txt or .csv"),
        (lambda root: shutil.rmtree(root / IMAGES), "no images such as 000001.jpg"),
    ],
)
def test_an_incomplete_celeba_says_what_is_missing(
    tmp_path: Path, jpegs: list[bytes], damage: Callable[[Path], None], message: str
) -> None:
    root = layout("flat, 0/1", tmp_path / "celeba", jpegs)
    damage(root)
    with pytest.raises(DataError, match=message):
        open_source(str(root), SourceOptions())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("list_attr_celeba.txt", "2\nMale Young\n1.jpg 1 1\n2.jpg 1\n", ":4: 1 labels for 2 attributes"),
        ("list_attr_celeba.txt", "2\nMale Young\n1.jpg 1 2\n", ":3: '2' is not a label"),
        ("list_attr_celeba.txt", "2\nMale Male\n1.jpg 1 1\n", "Male appears twice"),
        ("list_attr_celeba.txt", "2\nMale\n1.jpg 1\n1.jpg 1\n", ":4: 1.jpg is listed twice"),
        ("list_attr_celeba.txt", "2\nMale\n../1.jpg 1\n", "not a plain file name"),
        ("list_attr_celeba.txt", "", "lists no images"),
        ("list_eval_partition.txt", "000001.jpg 0\n", "does not list 000002.jpg"),
        ("list_eval_partition.txt", "000001.jpg 3\n", ":1: split is '3'"),
        ("list_eval_partition.txt", "000001.jpg\n", ":1: expected an image and its partition"),
    ],
)
def test_damaged_lists_are_named_with_the_line(
    tmp_path: Path, jpegs: list[bytes], file: str, text: str, message: str
) -> None:
    root = layout("flat, 0/1", tmp_path / "celeba", jpegs)
    (root / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(str(root), SourceOptions())


def test_a_truncated_zip_is_named(tmp_path: Path, jpegs: list[bytes]) -> None:
    root = layout("official, zipped", tmp_path / "celeba", jpegs)
    archive = root / "Img" / f"{IMAGES}.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DataError, match=f"cannot open .*{IMAGES}.zip"):
        open_source(str(root), SourceOptions())


def test_an_image_folder_with_and_without_splits(image_folder: Callable[..., Path]) -> None:
    given = open_source(str(image_folder(20, name="a")), SourceOptions(size=8, channels=1))
    assert given.splits_N.tolist() == [0, 0, 0, 1, 2] * 4
    assert given.reader.read(range(20)).images.shape == (20, 1, 8, 8)
    hashed = image_folder(200, split=False, name="b")
    splits_N = open_source(str(hashed), SourceOptions()).splits_N
    assert 0.7 < (splits_N == 0).mean() < 0.9
    other = open_source(str(hashed), SourceOptions(seed=1))
    assert (other.splits_N != splits_N).any() and other.identity["split_seed"] == 1


def test_the_table_may_lie_elsewhere(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = image_folder(5)
    table = shutil.move(folder / "metadata.csv", tmp_path / "labels.csv")
    source = open_source(str(folder), SourceOptions(size=8, table=Path(table)))
    assert source.table.names == ("Male", "Age") and len(source.reader.read(range(5)).kept) == 5


@pytest.fixture(scope="module")
def faces() -> Source:
    return open_source("synthetic:faces", SourceOptions(size=32, count=40, seed=3, overlap=0.7))


def test_synthetic_faces_are_the_process_itself(faces: Source) -> None:
    process = FaceProcess(overlap=0.7, seed=3, size=32)
    assert faces.splits_N.tolist() == [0] * 32 + [1] * 4 + [2] * 4
    assert faces.table.names == tuple(attribute.name for attribute in ATTRIBUTES)
    observed, held_out = process.subjects(0, 32), process.subjects(32, 8, randomised=True)
    batch = faces.reader.read(range(30, 35))
    np.testing.assert_array_equal(batch.images[:2], process.render(observed)[30:].numpy())
    np.testing.assert_array_equal(batch.images[2:], process.render(held_out)[:3].numpy())
    np.testing.assert_array_equal(faces.table.values_NA[32:], held_out.attributes_NA.numpy())


def test_attributes_told_in_parts_are_those_told_at_once(
    faces: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(process: FaceProcess, rows: range, train: int) -> Subjects:
        counts.append(len(rows))
        return people(process, rows, train)

    monkeypatch.setattr(faces_module, "people", counted)
    monkeypatch.setattr(faces_module, "AT_ONCE", 7)  # one of the parts trains in its beginning only
    assert isinstance(faces.reader, FacesReader)
    in_parts = faces.reader.attributes()
    assert counts == [7] * 5 + [5]
    np.testing.assert_array_equal(in_parts, faces.table.values_NA)


def test_synthetic_faces_know_their_counterfactuals(faces: Source) -> None:
    assert [spec.name for spec in faces.truths] == ["Young=flip", "Male=flip"]
    process = FaceProcess(overlap=0.7, seed=3, size=32)
    changed = process.subjects(32, 8, randomised=True).under({"Male": "flip"})
    truth = faces.reader.read(range(30, 40)).truths[1]
    assert truth.rows.tolist() == list(range(32, 40))
    np.testing.assert_array_equal(truth.images, process.render(changed).numpy())
    np.testing.assert_array_equal(truth.attributes_MA, changed.attributes_NA.numpy())
    assert [len(t.rows) for t in faces.reader.read(range(10)).truths] == [0, 0]


def test_synthetic_faces_ask_the_generators_question(faces: Source) -> None:
    assert faces.question.treatment == tuple(attribute.name for attribute in ROLES.treatments)
    assert faces.question.covariates == tuple(attribute.name for attribute in ROLES.covariates)


def test_grey_faces_and_chosen_truths() -> None:
    options = SourceOptions(size=32, channels=1, count=20, truths=["Young=-1:1:3", "Skin_Tone=0.5"])
    source = open_source("synthetic:faces", options)
    assert [spec.name for spec in source.truths] == ["Young=-1", "Young=0", "Young=1", "Skin_Tone=0.5"]
    assert source.reader.read(range(14, 18)).images.shape == (4, 1, 32, 32)


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        ("synthetic:fases", {}, r"did you mean synthetic:faces\?"),
        ("synthetic:faces", {"crop": 150}, "--crop 150 has no effect here"),
        ("synthetic:faces", {"table": Path("x.csv")}, "--table x.csv has no effect here"),
        ("synthetic:faces", {"count": 9}, "--n 9 is too few"),
        ("synthetic:faces", {"overlap": 0.0}, "--overlap 0 is outside"),
        ("synthetic:faces", {"size": 16}, "--size 16 is not between 32 and 256"),
        (
            "synthetic:faces",
            {"truths": ["Yuong=flip"]},
            r"unknown attribute 'Yuong' \(did you mean Young\?\)",
        ),
        ("synthetic:faces", {"truths": ["Skin_Tone=flip"]}, "has no other value to flip to"),
        ("photos", {"count": 20}, "--n 20 has no effect here"),
        ("photos", {"overlap": 0.5}, "--overlap 0.5 has no effect here"),
        ("photos", {"truths": ["Young=flip"]}, "--truth Young=flip has no effect here"),
        ("photos", {"seed": 1}, "--seed 1 has no effect: metadata.csv has a column split"),
        ("photos", {"size": 4}, "--size 4 is not between 8 and 1024"),
        ("photos", {"crop": 0}, "--crop 0 is not a number of pixels"),
    ],
)
def test_options_that_do_not_belong_are_refused(
    image_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    options: dict[str, object],
    message: str,
) -> None:
    image_folder(5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        open_source(named, SourceOptions(**options))  # type: ignore[arg-type]


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder \(did you mean synthetic:faces\?\)"):
        open_source("synthetic-faces", SourceOptions())
    (tmp_path / "file.txt").touch()
    with pytest.raises(DataError, match="is not a folder"):
        open_source(str(tmp_path / "file.txt"), SourceOptions())
