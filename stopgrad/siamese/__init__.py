"""The family: views go through an online branch, a target branch says what they should look like, an objective
compares the two. A method is a choice of predictor, target, objective and pairs."""
