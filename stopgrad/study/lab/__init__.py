"""The laboratory: papers' studies as data, run, judged and written as a page each."""
