"""Packing: what is written, that it continues after any interruption, and that bad files are dealt with."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from civae_core.data import PreparedData, pack
from civae_core.data.pack import Layout, MaxBad
from civae_core.data.prepare import Outcome, prepare
from civae_core.data.sources.base import Question, Source
from civae_core.data.workspace import named_by_command
from civae_core.errors import DataError, UsageError
from civae_core.file_names import PARTIAL

MakeSource = Callable[..., Source]
NO_BAD = MaxBad.parse("0")


def run(source: Source, out: Path, max_bad: MaxBad = NO_BAD, **options: object) -> Outcome:
    return prepare(source, out, workers=1, max_bad=max_bad, **options)  # type: ignore[arg-type]


def reads(tmp_path: Path) -> list[str]:
    path = tmp_path / "reads.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_images_labels_splits_and_names_arrive(counting_source: MakeSource, tmp_path: Path) -> None:
    run(counting_source(300), tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    assert len(data) == 300 and (data.size, data.channels) == (4, 1)
    y_NCHW = data.images(torch.arange(300))
    assert y_NCHW.shape == (300, 1, 4, 4) and y_NCHW.dtype == torch.uint8
    assert y_NCHW[:, 0, 2, 1].tolist() == [row % 251 for row in range(300)]
    assert data.column("Old").tolist() == [row % 2 for row in range(300)]
    assert data.rows("test").tolist() == list(range(4, 300, 5))
    assert data.file_names[299] == "é-299"
    assert not (tmp_path / "out" / PARTIAL).exists()
    data.verify()


def test_many_shards_hold_the_same_images(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 64 * 16 * 2)
    run(counting_source(300), tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("images-*"))) == 3
    rows = torch.tensor([299, 0, 128, 127, 128, 255, 256])
    assert data.images(rows)[:, 0, 0, 0].tolist() == [row % 251 for row in rows.tolist()]
    data.verify()


def test_after_a_chunk_only_its_own_shard_is_looked_at(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 64 * 16 * 2)
    looked_at, real = [], Layout.chunks_of

    def chunks_of(layout: Layout, shard: int) -> range:
        looked_at.append(shard)
        return real(layout, shard)

    monkeypatch.setattr(Layout, "chunks_of", chunks_of)
    run(counting_source(300), tmp_path / "out")
    assert looked_at == [0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2], "twice all at the start, then one for each chunk"


def test_truths_belong_to_their_rows(counting_source: MakeSource, tmp_path: Path) -> None:
    run(counting_source(300, truths=2, bad=(4, 7)), tmp_path / "out", MaxBad.parse("2"))
    data = PreparedData.open(tmp_path / "out")
    assert [truth.name for truth in data.truth] == ["Old=0", "Old=1"]
    for k, truth in enumerate(data.truth):
        assert truth.rows.tolist() == data.rows("test").tolist()
        assert truth.do == {"Old": float(k)} and (truth.table_MA == 1.0 - k).all()
        indices = torch.tensor([5, 0, len(truth) - 1])
        assert torch.equal(truth.images(indices), 255 - data.images(truth.rows[indices]))


def test_several_processes_write_the_same_bytes(
    counting_source: MakeSource, image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = counting_source(300, truths=1)
    one = prepare(source, tmp_path / "one", workers=1, max_bad=NO_BAD)
    two = prepare(source, tmp_path / "two", workers=2, max_bad=NO_BAD)
    assert one.data.fingerprint == two.data.fingerprint


@pytest.mark.parametrize("shard_bytes", [2**30, 64 * 16 * 2])
def test_an_interrupted_preparation_continues(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", shard_bytes)
    whole = run(counting_source(300, truths=1), tmp_path / "whole").data
    reads(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(counting_source(300, truths=1, stop_at=200), out)
    assert len(reads(tmp_path)) == 3
    with pytest.raises(DataError, match="only half prepared"):
        PreparedData.open(out)
    data = run(counting_source(300, truths=1), out).data
    assert reads(tmp_path) == ["192 256", "256 300"]
    assert data.fingerprint == whole.fingerprint


KILLED = """
import os, signal, sys
from dataclasses import dataclass, replace
from pathlib import Path
from civae_core.data.pack import MaxBad
from civae_core.data.prepare import prepare
from civae_core.data.sources.base import Batch
from civae_core.data.sources.folder import folder_source

@dataclass(frozen=True)
class Killer:
    reader: object
    def read(self, rows: range) -> Batch:
        if rows.start:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reader.read(rows)

source = folder_source(Path(sys.argv[1]), table=None, size=8, channels=3, crop=None, seed=None)
prepare(replace(source, reader=Killer(source.reader)), Path(sys.argv[2]), workers=1, max_bad=MaxBad.parse("0"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_after_kill_9_the_same_command_continues(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    from civae_core.data.sources.folder import folder_source

    folder, out = image_folder(100), tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], capture_output=True)
    assert killed.returncode == -9
    assert [path.name for path in (out / PARTIAL).glob("chunk-*.json")] == ["chunk-00000.json"]
    (out / ".images-00000.safetensors.abc.tmp").write_bytes(b"half")
    (folder / "000.jpg").unlink()  # already packed, so it is not looked at again
    source = folder_source(folder, table=None, size=8, channels=3, crop=None, seed=None)
    assert len(run(source, out).data) == 100
    assert not any(path.name.startswith(".") for path in out.iterdir())


def test_a_damaged_record_names_what_to_delete(counting_source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).mkdir()
    (tmp_path / PARTIAL / "chunk-00000.json").write_text("{")
    with pytest.raises(DataError, match=r"chunk-00000\.json is damaged") as caught:
        pack.pack(counting_source(), tmp_path, workers=1, max_bad=NO_BAD)
    assert caught.value.hint == f"delete {tmp_path} and run the same command again", (
        "quickstart has no --overwrite"
    )


def test_a_finished_preparation_returns_at_once(counting_source: MakeSource, tmp_path: Path) -> None:
    first = run(counting_source(), tmp_path / "out")
    reads(tmp_path)
    again = run(counting_source(), tmp_path / "out")
    assert first.fresh and not again.fresh
    assert reads(tmp_path) == []
    assert again.data.fingerprint == first.data.fingerprint


def test_another_question_only_renews_the_report(counting_source: MakeSource, tmp_path: Path) -> None:
    source = counting_source(300, bad=(3,))
    run(source, tmp_path / "out", MaxBad.parse("1"))
    reads(tmp_path)
    before = (tmp_path / "out" / "report.json").read_text()
    outcome = run(source, tmp_path / "out", question=Question(("Old",)))
    after = (tmp_path / "out" / "report.json").read_text()
    assert not outcome.fresh and reads(tmp_path) == []
    assert '"overlap": []' in before and '"treatment": "Old"' in after and '"é-3"' in after


def test_a_folder_of_something_else_is_left_alone(counting_source: MakeSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not empty and was not written by prepare-data"):
            run(counting_source(), out, overwrite=overwrite)
    (out / "dataset.yml").write_text("mine: too\n")
    with pytest.raises(UsageError, match="not written by"):
        run(counting_source(), out)
    with pytest.raises(UsageError, match="not written by"):
        run(counting_source(), out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.yml", "thesis.tex"]


def test_another_preparation_needs_overwrite(counting_source: MakeSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(counting_source(300, stop_at=200), out)
    with pytest.raises(UsageError, match="another, unfinished preparation"):
        run(counting_source(200), out)
    run(counting_source(300), out)
    with pytest.raises(UsageError, match="already holds other prepared data"):
        run(counting_source(200), out)
    (out / "notes.txt").write_text("keep me")
    assert len(run(counting_source(200), out, overwrite=True).data) == 200
    assert (out / "notes.txt").read_text() == "keep me"


def test_a_command_that_chose_the_folder_itself_has_a_hint_of_its_own(
    counting_source: MakeSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def refused() -> tuple[str, str | None]:
        with pytest.raises(UsageError) as caught, named_by_command():
            run(counting_source(200), out)
        return caught.value.message.removeprefix(f"{out} "), caught.value.hint

    delete = f"name another --out, or delete {out}"
    with pytest.raises(KeyboardInterrupt):
        run(counting_source(300, stop_at=200), out)
    assert refused() == ("holds another, unfinished preparation", delete)
    plan = out / PARTIAL / "plan.json"
    stated = plan.read_text()
    plan.write_text("{")
    message, hint = refused()
    assert message.startswith("has a damaged plan.json (") and hint == delete
    plan.write_text(stated)
    run(counting_source(300), out)
    message, hint = refused()
    assert message.startswith("already holds other prepared data (")
    assert hint == f"{delete} and what was trained on it"
    (out / "dataset.yml").write_text("mine: too\n")
    message, hint = refused()
    assert message.startswith("is not empty: ") and hint == delete
    (out / "dataset.yml").unlink()
    assert refused() == ("is not empty and was not written by prepare-data", "name another --out")


def test_a_file_as_output_is_refused(counting_source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        run(counting_source(), tmp_path / "file")


def test_bad_images_are_skipped_and_listed(counting_source: MakeSource, tmp_path: Path) -> None:
    outcome = run(counting_source(300, bad=(0, 130)), tmp_path / "out", MaxBad.parse("1%"))
    data = outcome.data
    assert outcome.rejected == 2 and len(data) == 298
    assert "é-130" not in data.file_names and data.images(torch.tensor([0, 129]))[:, 0, 0, 0].tolist() == [
        1,
        131,
    ]
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "é-130" in report and "spoilt" in report


def test_too_many_bad_images_fail_and_repaired_ones_are_read_again(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 64 * 16 * 2)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"at least 2 of 300 .*é-200: spoilt.*--max-bad 1 allows 1") as caught:
        run(counting_source(300, bad=(3, 200)), out, MaxBad.parse("1"))
    assert "--max-bad" in (caught.value.hint or "")
    reads(tmp_path)
    data = run(counting_source(300), out).data
    assert len(data) == 300 and data.images(torch.tensor([3, 200]))[:, 0, 0, 0].tolist() == [3, 200]


@pytest.mark.parametrize("shard_bytes", [2**30, 64 * 16 * 2])
def test_more_bad_images_allowed_later_keep_the_work_done(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", shard_bytes)
    source, out = counting_source(300, bad=(3, 70, 200)), tmp_path / "out"
    with pytest.raises(DataError, match=r"at least 3 of 300") as caught:
        run(source, out, MaxBad.parse("2"))
    assert "keeps the work done so far" in (caught.value.hint or "")
    reads(tmp_path)
    with pytest.raises(DataError, match=r"at least 3 of 300"):
        run(source, out, MaxBad.parse("2"))
    alone = ["3 4", "70 71", "200 201"]
    assert reads(tmp_path) == alone, "they may have been repaired"
    data = run(source, out, MaxBad.parse("3")).data
    assert reads(tmp_path) == [*alone, "256 300"]
    assert data.fingerprint == run(source, tmp_path / "whole", MaxBad.parse("3")).data.fingerprint


def test_a_process_killed_while_it_dropped_repaired_chunks_is_recovered_from(
    counting_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 64 * 16 * 2)
    out = tmp_path / "out"
    with pytest.raises(DataError):
        run(counting_source(300, bad=(3, 200)), out, MaxBad.parse("1"))
    assert (out / "images-00000.safetensors").exists()
    (out / PARTIAL / "chunk-00000.json").unlink()
    data = run(counting_source(300), out).data
    assert data.fingerprint == run(counting_source(300), tmp_path / "whole").data.fingerprint
    data.verify()


def test_no_good_image_at_all_fails(counting_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 5 images can be used"):
        run(counting_source(5, bad=tuple(range(5))), tmp_path / "out", MaxBad.parse("100%"))


@pytest.mark.parametrize(
    ("text", "images", "allowed"),
    [("0", 10, 0), ("25", 10, 25), ("1%", 250, 2), ("0.5%", 1000, 5), ("29%", 100, 29), ("100%", 7, 7)],
)
def test_limits_are_counts_or_shares(text: str, images: int, allowed: int) -> None:
    assert MaxBad.parse(text).allowed(images) == allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "nan%", "x%", "%", "1/3%", f"1e-{10**30}%"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-bad"):
        MaxBad.parse(text)


@pytest.mark.parametrize(
    ("rows", "image_bytes"), [(1, 1), (63, 48), (202_599, 12_288), (30_000, 3 * 1024**2)]
)
def test_every_row_is_in_one_chunk_and_every_chunk_in_one_shard(rows: int, image_bytes: int) -> None:
    layout = Layout(rows, image_bytes)
    shards = [layout.chunks_of(shard) for shard in range(layout.shards)]
    chunks = [chunk for shard in shards for chunk in shard]
    assert chunks == list(range(layout.chunks))
    assert [shards[layout.shard_of(chunk)].index(chunk) >= 0 for chunk in chunks] == [True] * len(chunks)
    assert [row for chunk in chunks for row in layout.rows_of(chunk)] == list(range(rows))
    assert layout.chunk * image_bytes <= pack.CHUNK_BYTES
    assert all(len(shard) * layout.chunk * image_bytes <= pack.SHARD_BYTES for shard in shards)


def test_shards_have_a_gibibyte() -> None:
    """Their checksums, and so the fingerprint of all large data, rest on where one ends."""
    for image_bytes, images in ((3 * 64**2, 87_040), (3 * 1024**2, 340)):
        layout = Layout(rows=200_000, image_bytes=image_bytes)
        assert layout.chunks_per_shard * layout.chunk == images
        assert 0.99 * 2**30 < images * image_bytes <= 2**30


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(("Odl",)), r"--treatment Odl: unknown attribute 'Odl' \(did you mean Old"),
        (Question(("Old",), ("Male",)), "--covariate Male: unknown attribute"),
        (Question(("Old",), ("Old",)), "cannot be both"),
        (Question((), ("Old",)), "needs a --treatment"),
    ],
)
def test_impossible_questions_are_refused_before_reading(
    counting_source: MakeSource, tmp_path: Path, question: Question, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(counting_source(), tmp_path / "out", question=question)
    assert reads(tmp_path) == [] and not (tmp_path / "out").exists()


def test_statistics_are_those_of_the_training_split(counting_source: MakeSource, tmp_path: Path) -> None:
    source = counting_source(100)
    values_NA = np.arange(100, dtype=np.float32)[:, None].copy()
    values_NA[0] = np.nan
    table = replace(source.table, kinds=("continuous",), values_NA=values_NA)
    (attribute,) = run(replace(source, table=table), tmp_path / "out").data.attributes
    train = [row for row in range(1, 100) if row % 5 < 3]
    assert (attribute.low, attribute.high) == (1.0, 97.0)
    assert attribute.mean == pytest.approx(np.mean(train)) and attribute.std == pytest.approx(np.std(train))


def test_the_fingerprint_covers_data_and_column_names(counting_source: MakeSource, tmp_path: Path) -> None:
    source = counting_source(20)
    renamed = replace(source, table=replace(source.table, names=("New",)))
    prints = {run(s, tmp_path / str(i)).data.fingerprint for i, s in enumerate([source, source, renamed])}
    assert len(prints) == 2
