"""How good is a generator? Truth and samples become rows of statistics (`run`), rows become metrics and tables, all by grouping.

`recipe` says what is asked: protocols, and the conditions that they are for a case. `cases` and `generators` say where truth and samples
come from, `statistics` what is measured, `rows` how it is kept and read again, `kept` how samples are kept for the figures.
"""
