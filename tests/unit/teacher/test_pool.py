from kdray.teacher.pool import most_wait


def test_nodes_that_an_autoscaler_adds_are_waited_for_longer() -> None:
    alone, grown = {"Labels": {}}, {"Labels": {"ray.io/node-group": "headgroup"}}
    assert most_wait([alone]) == 600 and most_wait([grown, alone]) == 3600
