"""What a model's card says of its evaluation, whatever stands there."""

from civae_core.export.card_facts import measured_facts


def test_the_intervention_reads_as_it_is_typed_even_in_a_file_that_holds_anything() -> None:
    evaluation = {"do": {"Young": "flip", "Age": 70.0, "Odd": [1], "Huge": 10**400}}
    about = measured_facts(evaluation, {"ate_error": 0.5}).about
    assert "under Young=flip, Age=70, Odd=[1], Huge=1000" in about
