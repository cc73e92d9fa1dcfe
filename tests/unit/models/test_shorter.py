"""Teachers of vectors that are cut to their principal directions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdray.config import StudentConfig
from kdray.errors import DataError, ModelError
from kdray.models.folder import label_order
from kdray.models.load import build, load_model, student_origin
from kdray.models.pooling import must_pool
from kdray.models.shorter import calls, check_shorter, moment, write_shorter
from kdray.tasks import TASKS
from tests.small import make_embedder, sentences
from tests.unit.models.test_embedder import by_library, vectors

TASK = TASKS["sentence-embedding"]
ROWS = [row["text"] for row in sentences(300)]


def shorter(folder: Path, dimensions: int, target: Path) -> float:
    moments = (moment(*those) for those in calls(str(folder), TASK, 32, 0, ROWS))
    return write_shorter(TASK, folder, moments, dimensions, target)


def loaded(folder: Path):
    return load_model(TASK, folder, label_order(folder, TASK) or [])


@pytest.mark.parametrize("normalised", [True, False])
def test_vectors_are_what_the_principal_directions_of_all_say(tmp_path: Path, normalised: bool) -> None:
    folder = make_embedder(tmp_path / "teacher", normalised=normalised)
    kept = shorter(folder, 6, tmp_path / "short")
    whole = np.concatenate([vectors(loaded(folder), folder, ROWS[start:start + 50]).numpy()
                            for start in range(0, 300, 50)])
    _, lengths, directions = np.linalg.svd(whole.astype(np.float64), full_matrices=False)
    assert kept == pytest.approx((lengths[:6] ** 2).sum() / (lengths ** 2).sum(), rel=1e-4)
    wanted = whole[:3] @ directions[:6].T
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True) if normalised else 1
    found = vectors(loaded(tmp_path / "short"), folder, ROWS[:3]).numpy()
    assert found.shape == (3, 6) and np.allclose(found @ found.T, wanted @ wanted.T, atol=1e-4)
    assert torch.allclose(by_library(tmp_path / "short", ROWS[:3]), torch.from_numpy(found), atol=1e-5)


def test_a_narrow_student_of_it_needs_no_layer_of_its_own_and_what_is_short_can_be_cut_again(tmp_path: Path) -> None:
    folder = make_embedder(tmp_path / "teacher")
    shorter(folder, 16, tmp_path / "short")
    origin = student_origin(StudentConfig(fresh={"num_hidden_layers": 1, "hidden_size": 16}), tmp_path / "short",
                            must_pool(tmp_path / "short"))
    model = build(TASK, origin, label_order(tmp_path / "short", TASK) or [], 0)
    assert model.dense is None and vectors(model, folder).shape == (3, 16)
    shorter(tmp_path / "short", 4, tmp_path / "shortest")
    once = shorter(folder, 4, tmp_path / "once")
    assert 0.5 < once < 1 and must_pool(tmp_path / "shortest").dense.width == 4
    found = [vectors(loaded(tmp_path / name), folder) for name in ("shortest", "once")]
    assert torch.allclose(*(one @ one.T for one in found), atol=0.02)


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    folder = make_embedder(tmp_path / "teacher")
    with pytest.raises(ModelError, match=r"teacher\.dimensions = 32 must be below the 32 of teacher\.model"):
        check_shorter(folder, 32)
    with pytest.raises(DataError, match=r"teacher\.dimensions = 6: the texts of train have fewer directions"):
        write_shorter(TASK, folder, (moment(*those) for those in calls(str(folder), TASK, 32, 0, ROWS[:3])), 6,
                      tmp_path / "short")
    shorter(folder, 8, tmp_path / "tanh")
    config = tmp_path / "tanh/2_Dense/config.json"
    config.write_text(config.read_text().replace("linear.Identity", "activation.Tanh"))
    with pytest.raises(ModelError, match="ends in Tanh, and none can follow it"):
        check_shorter(tmp_path / "tanh", 4)
