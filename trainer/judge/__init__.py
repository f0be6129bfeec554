"""AI feedback: a model rates what no person has rated, by a rubric in the prompt's language (`trainer judge`).

command.py is the command; rubric.py what is asked, verdicts.py what an answer means, local.py and endpoint.py who is
asked, judging.py the work. What there is to judge, and what a judge is worth, is in storage (feedback/unjudged.py,
feedback/calibration.py).
"""
