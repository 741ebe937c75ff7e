"""Judge any training loop where it stands, without a second loop to compare with.

Read `events` for the facts of a loop, `watch` for how they are seen, `loss_weights` for the weight of a token, `rules`
for what is wrong or unusual, then `report` and `command`.
"""

__all__: list[str] = []
