"""Several runs as one question: methods side by side. `plan` says what is trained, `compare` trains it run by run, each
in a process of its own (`child`); `measured`, `table` and `side_by_side` read what runs came to and lay it out."""
