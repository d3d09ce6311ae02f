"""Human evaluation and preference collection: blind votes, sound figures, pairs to train on.

A study is made once and never changed (`create`: `sources` match the systems' samples, `media` encode them alike, `study` is
what is written). `serve` shows it: `web` guards the addresses, `desk` hands out items under names used once, `store` keeps
votes in the database of `tables`, `people` knows links and replacements; `page/` is what runs in the browser.

Votes leave the database as `ballots` (or come from elsewhere: `foreign`). `results` reduces them by pure functions: `votes`
(majority, win rate, agreement), `strengths` (Bradley-Terry), `sequential` (an interval for studies that stop early),
`ability` (item response), `careless` (flags). `report` shows the figures, `export` writes pairs. `power` tells beforehand how
large a study must be.

`solo` is the short way for one person: a tournament (`swiss`) on the same page, its log the only state.
"""
