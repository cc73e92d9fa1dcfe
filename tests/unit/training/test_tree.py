"""A checkpoint's tree comes back as it was, and nothing but plain values is read."""

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from kdray.training.tree import read_tree, write_tree


def test_a_tree_comes_back_as_it_was(tmp_path):
    tree = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 4)}, 1: {}},
            "groups": [{"lr": 1e-4 / 3, "betas": (0.9, 0.999), "fused": True, "foreach": None}],
            "bits": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16), "nothing": torch.empty(0),
            "best": float("-inf"), "name": "linear", "transposed": torch.arange(6).reshape(2, 3).T}
    write_tree(tree, tmp_path / "tree")
    found = read_tree(tmp_path / "tree")
    assert list(found) == list(tree) and list(found["state"]) == [0, 1]
    assert found["groups"] == tree["groups"] and (found["best"], found["name"]) == (tree["best"], "linear")
    for one, other in ((found["state"][0]["exp_avg"], tree["state"][0]["exp_avg"]),
                       (found["state"][0]["step"], tree["state"][0]["step"]), (found["nothing"], tree["nothing"]),
                       (found["bits"].view(torch.int16), tree["bits"].view(torch.int16)),
                       (found["transposed"], tree["transposed"])):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_what_is_read_is_the_reader_s_own_though_the_file_goes(tmp_path):
    write_tree({"weight": torch.ones(1000)}, tmp_path / "tree")
    weight = read_tree(tmp_path / "tree")["weight"]
    (tmp_path / "tree").write_bytes(b"")
    weight.mul_(2)
    assert weight.sum() == 2000


def test_tied_weights_are_written_once(tmp_path):
    weight = torch.randn(1000)
    write_tree(OrderedDict(a=weight, b=weight.detach()), tmp_path / "once")
    write_tree({"a": weight, "b": weight.clone()}, tmp_path / "twice")
    assert (tmp_path / "twice").stat().st_size - (tmp_path / "once").stat().st_size > 3900
    found = read_tree(tmp_path / "once")
    assert torch.equal(found["a"], weight) and torch.equal(found["b"], weight)


def test_views_that_do_not_overlap_are_written_apart(tmp_path):
    flat = torch.arange(10.0)
    write_tree({"a": flat[:4], "b": flat[4:]}, tmp_path / "tree")
    assert torch.equal(read_tree(tmp_path / "tree")["b"], flat[4:])


@pytest.mark.parametrize("tree, name", [({"a": object()}, "builtins.object"), ([{1, 2}], "builtins.set"),
                                        ({"a": torch.float32}, "torch.dtype"), ({1.5: 1}, "1.5")])
def test_what_would_need_a_pickle_is_refused_by_name(tmp_path, tree, name):
    with pytest.raises(TypeError, match=name):
        write_tree(tree, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps({"a": 1}),
                                  (8).to_bytes(8, "little") + b"{}      "])
def test_another_file_is_refused_by_name(tmp_path: Path, data: bytes):
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="other holds no tree of tensors"):
        read_tree(path)
