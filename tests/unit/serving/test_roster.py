"""Students are switched in one step and only after their check; who uses one has it until done."""

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import transformers

from kdray.errors import KdrayError, ModelError
from kdray.serving import roster as module
from kdray.serving.parity import write_parity
from kdray.serving.predictor import load_predictor
from kdray.serving.roster import Engine, Roster, Slot, fetch_package, tokens_of
from tests.packages import write_package

ENGINE = Engine("onnx", num_gpus=0, threads=1, batch_tokens=256, max_queue=100)
TEXTS = [f"The {one} of the {two}." for one in ("film", "plot", "ending") for two in ("year", "night", "sea")]


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """Students one and two, one whose sample says the opposite, and two that answer something else."""
    folder = tmp_path_factory.mktemp("packages")
    for seed, (name, labels) in enumerate({"one": "ab", "two": "ba", "cats": "ac"}.items()):
        write_package(folder / name, "sequence-classification", transformers.BertForSequenceClassification,
                      list(labels), seed)
        write_parity(folder / name, load_predictor(folder / name, "onnx", 0, 1, 256), TEXTS)
    shutil.copytree(folder / "one", folder / "liar")
    sample = json.loads((folder / "one/parity.json").read_text())
    opposite = [["b" if label == "a" else "a" for label in labels] for labels in sample["labels"]]
    (folder / "liar/parity.json").write_text(json.dumps({**sample, "labels": opposite}))
    write_package(folder / "names", "token-classification", transformers.BertForTokenClassification, ["a", "b"])
    return folder


@pytest.fixture
def slot(packages) -> Callable[..., Slot]:
    def made(package: str, canary: str | None = None, share: float = 0.0) -> Slot:
        return Slot(package=str(packages / package), canary=canary and str(packages / canary), share=share)

    return made


def run(scenario: Callable[[Roster], Coroutine[Any, Any, None]]) -> None:
    """Runs `scenario` with a roster that is closed at the end."""

    async def whole() -> None:
        made = Roster(ENGINE)
        try:
            await asyncio.wait_for(scenario(made), 30)
        finally:
            await made.close()

    asyncio.run(whole())


async def who(made: Roster, name: str = "default") -> str:
    """Name of the package that answers."""
    with made.using(name) as student:
        (prediction,) = await student.batcher.submit([("What a film.", {})])
    assert prediction.said[0] in student.manifest["labels"]
    return student.manifest["key"]


async def retired(made: Roster) -> None:
    await asyncio.gather(*made._retiring.values())


def test_students_answer_by_name(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one"), "other": slot("two")})
        assert (await who(made), await who(made, "other")) == ("one", "two")
        assert [one["key"] for one in made.manifests("other")] == ["two"] and made.refused == {}
        for ask in (made.manifests, lambda name: made.using(name).__enter__()):
            with pytest.raises(KeyError):
                ask("nobody")

    run(scenario)


def test_a_package_that_is_served_already_is_not_loaded_again(slot, monkeypatch):
    loaded: list[str] = []
    load = module.load_checked
    monkeypatch.setattr(module, "load_checked", lambda uri, engine: loaded.append(Path(uri).name) or load(uri, engine))

    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one"), "other": slot("one")})
        await made.apply({"default": slot("one"), "other": slot("two")})
        assert loaded == ["one", "two"]

    run(scenario)


def test_a_switch_changes_who_answers_and_retires_the_old_student(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        await made.apply({"default": slot("two")})
        assert await who(made) == "two" and list(made._loaded) == [slot("two").package]
        await retired(made)
        assert not made._retiring

    run(scenario)


def test_the_old_student_answers_while_the_new_one_loads(slot, monkeypatch):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        loop, began, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        load = module.load_checked

        def slow(uri: str, engine: Engine) -> Any:
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
            return load(uri, engine)

        monkeypatch.setattr(module, "load_checked", slow)
        switch = asyncio.create_task(made.apply({"default": slot("two")}))
        await began.wait()
        assert await who(made) == "one"
        go.set()
        await switch
        assert await who(made) == "two"

    run(scenario)


def test_who_uses_a_student_has_it_until_done_though_it_is_retired(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        with made.using("default") as student:
            await made.apply({"default": slot("two")})
            await asyncio.sleep(0.15)
            assert len(made._retiring) == 1
            (prediction,) = await student.batcher.submit([("What a film.", {})])
            assert prediction.said[0] in "ab" and student.manifest["key"] == "one"
        await retired(made)
        with pytest.raises(RuntimeError, match="closed"):
            await student.batcher.submit([("What a film.", {})])

    run(scenario)


def test_a_user_that_fails_is_a_user_no_more(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        with pytest.raises(ZeroDivisionError), made.using("default") as student:
            raise ZeroDivisionError
        assert student.users == 0

    run(scenario)


def test_a_student_that_fails_its_check_is_refused_and_the_old_one_stays(slot, caplog):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one"), "other": slot("one")})
        await made.apply({"default": slot("liar"), "other": slot("two")})
        assert (await who(made), await who(made, "other")) == ("one", "two")
        assert made.slots["default"] == slot("one")
        assert list(made.refused) == ["default"] and "does not answer like its student" in made.refused["default"]
        await made.apply({"default": slot("two")})
        assert made.refused == {} and await who(made) == "two"

    run(scenario)
    assert "default stays as it is" in caplog.text


@pytest.mark.parametrize("canary", ["liar", "nothing"])
def test_a_canary_that_fails_its_check_is_refused_with_its_slot(slot, canary):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        await made.apply({"default": slot("one", canary, 1.0)})
        assert await who(made) == "one" and made.slots["default"].canary is None and "default" in made.refused

    run(scenario)


@pytest.mark.parametrize("package", ["liar", "nothing"])
def test_a_name_that_serves_nothing_yet_raises(slot, package):
    async def scenario(made: Roster) -> None:
        with pytest.raises(ModelError):
            await made.apply({"default": slot(package)})
        await made.apply({"default": slot("one")})
        with pytest.raises(KdrayError):
            await made.apply({"default": slot("two"), "new": slot(package)})
        assert await who(made) == "one" and "new" not in made.slots

    run(scenario)


def test_a_torn_model_file_is_refused_too(slot, packages, tmp_path):
    torn = shutil.copytree(packages / "two", tmp_path / "torn")
    (torn / "onnx/model.onnx").write_bytes((torn / "onnx/model.onnx").read_bytes()[:1000])

    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        await made.apply({"default": Slot(package=str(torn))})
        assert await who(made) == "one" and "default" in made.refused

    run(scenario)


def test_a_name_that_is_not_wanted_any_more_is_gone(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one"), "other": slot("two")})
        await made.apply({"default": slot("one")})
        with pytest.raises(KeyError):
            await who(made, "other")
        assert list(made._loaded) == [slot("one").package]

    run(scenario)


@pytest.mark.parametrize("share, expected, told", [(0.0, 0, ["one"]), (0.3, 3, ["one", "two"]), (1.0, 5, ["two"])])
def test_a_canary_answers_its_share_and_is_named_first_where_that_is_most(slot, monkeypatch, share, expected, told):
    draws = iter([0.0, 0.1, 0.29, 0.3, 0.99])
    monkeypatch.setattr(module.random, "random", lambda: next(draws))

    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one", "two", share)})
        answers = [await who(made) for _ in range(5)]
        assert answers.count("two") == expected
        assert [one["key"] for one in made.manifests("default")] == told

    run(scenario)


def test_a_canary_becomes_the_student_without_being_loaded_again(slot, monkeypatch):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one", "two", 0.5)})
        monkeypatch.setattr(module, "load_checked", None)
        await made.apply({"default": slot("two")})
        assert await who(made) == "two"
        await retired(made)

    run(scenario)


def test_no_request_is_lost_while_students_are_switched(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        answers: list[str] = []
        over = asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                answers.append(await who(made))

        clients = [asyncio.create_task(client()) for _ in range(4)]
        for package in ("two", "one", "two"):
            await made.apply({"default": slot(package)})
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*clients)
        assert set(answers) == {"one", "two"} and await who(made) == "two"

    run(scenario)


def test_two_changes_at_once_come_one_after_the_other(slot):
    async def scenario(made: Roster) -> None:
        await asyncio.gather(made.apply({"default": slot("one")}), made.apply({"default": slot("two")}))
        assert await who(made) == "two" and list(made._loaded) == [slot("two").package]

    run(scenario)


def test_what_waits_is_counted_over_all_students_and_answered_at_the_end(slot):
    async def scenario(made: Roster) -> None:
        assert made.waiting == 0
        await made.apply({"default": slot("one"), "other": slot("two")})
        tasks = [asyncio.create_task(who(made, name)) for name in ("default", "other") for _ in range(3)]
        await asyncio.sleep(0)
        assert made.waiting > 0
        await made.close()
        assert sorted(await asyncio.gather(*tasks)) == ["one"] * 3 + ["two"] * 3

    run(scenario)


@pytest.mark.parametrize("package, words", [("names", "task token-classification"), ("cats", "labels a, c")])
def test_what_answers_something_else_is_refused(slot, package, words):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        with pytest.raises(ModelError, match=f"has the {words}, and default answers with"):
            await made.prepare("default", slot(package).package)
        await made.apply({"default": slot(package), "other": slot(package)})
        assert await who(made) == "one" and await who(made, "other") == package
        assert words in made.refused["default"]

    run(scenario)


def test_what_is_prepared_is_there_when_it_is_wanted_and_let_go_where_it_is_not(slot, monkeypatch):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        await made.prepare("default", slot("two").package)
        assert await who(made) == "one" and len(made._loaded) == 2
        await made.release()
        assert list(made._loaded) == [slot("one").package]
        await made.prepare("default", slot("two").package)
        monkeypatch.setattr(module, "load_checked", None)
        await made.apply({"default": slot("two")})
        assert await who(made) == "two" and made.refused == {}

    run(scenario)


def test_what_fails_while_it_is_prepared_leaves_nothing(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        for package in ("liar", "cats", "nothing"):
            with pytest.raises(ModelError):
                await made.prepare("default", slot(package).package)
        assert list(made._loaded) == [slot("one").package]

    run(scenario)


@pytest.mark.parametrize("error", [OSError(5, "the share is gone"), RuntimeError("AccessDenied"), MemoryError()])
def test_whatever_storage_does_a_student_that_is_served_stays(slot, monkeypatch, error):
    def broken(uri: str) -> Path:
        raise error

    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        monkeypatch.setattr(module, "fetch_package", broken)
        await made.apply({"default": slot("two")})
        assert await who(made) == "one" and "default" in made.refused
        await made.apply({"default": slot("one")})
        assert await who(made) == "one" and made.refused == {}

    run(scenario)


def test_the_load_is_what_is_done_of_what_could_be_and_a_batch_that_waits_is_all(slot):
    async def scenario(made: Roster) -> None:
        await made.apply({"default": slot("one")})
        assert made.load() == 0.0 and made.running_for == 0.0
        assert await who(made) == "one"
        assert 0 < made.load() < 1
        assert made.load() == 0.0
        with made.using("default") as student:
            calls = [asyncio.create_task(student.batcher.submit([("word " * 40, {})] * 3)) for _ in range(12)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert made.load() >= 1 and made.running_for > 0
            await asyncio.gather(*calls)

    run(scenario)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share):
    with pytest.raises(ValueError):
        Slot(package="a", share=share)


@pytest.mark.parametrize("item, tokens", [
    ("", 2), ("four", 3), ("x" * 4000, 32), ({"text": "four", "text_pair": "four"}, 4), (7, 2), ({"text": None}, 2),
    ({}, 2)])
def test_tokens_are_guessed_from_characters_whatever_the_item_is(item, tokens):
    assert tokens_of(32)((item, {})) == tokens


def test_a_folder_is_its_own_package(packages):
    assert fetch_package(str(packages / "one")) == packages / "one"
