from sipo.rounds.report import OWN, PAIRS, SCORE, over_rounds


def test_all_panels_run_over_rounds():
    """The records count the steps of the round's training by the name under which curves have their horizontal."""
    first = {"round": 0, "held_out": {"score": 0.5, "low": 0.4, "high": 0.6}}
    later = [
        {"round": number, "step": 20 + number, "num_pairs": 30, "samples": {"score": 0.7}, "held_out": {"score": 0.6}}
        for number in (1, 2)
    ]
    found = over_rounds([first, *later])
    assert {panel: [line["step"] for line in lines] for panel, lines in found.items()} == {
        SCORE: [0, 1, 2], OWN: [1, 2], PAIRS: [0, 1, 2],
    }  # fmt: skip
    assert [line.get("num_pairs") for line in found[PAIRS]] == [None, 30, 30]
