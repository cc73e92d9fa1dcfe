"""Wrong arguments end with status 2 and say what is wrong, before anything is looked at."""

import pytest

from kdray.cli import main


@pytest.mark.parametrize("arguments, words", [
    (["gc", "--grace", "-1"], "argument --grace: '-1' is not a number of 0 or more"),
    (["gc", "--grace", "nan"], "argument --grace: 'nan' is not a number of 0 or more"),
    (["gc", "--grace", "soon"], "argument --grace: 'soon' is not a number of 0 or more"),
    (["verify", "ab", "--rows", "-5"], "argument --rows: '-5' is not a whole number of 0 or more"),
    (["show"], "required: CACHE"),
])
def test_wrong_arguments_of_the_cache_verbs_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        main(["cache", *arguments])
    assert end.value.code == 2 and words in capsys.readouterr().err
