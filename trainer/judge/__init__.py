"""AI feedback: a model rates what no person has rated, by a rubric in the prompt's language (`trainer judge`).

work.py is the job, whose settings are in trainer/methods/judge.py; rubric.py what is asked, verdicts.py what an answer
means, asked.py who is asked, local.py and endpoint.py how, judging.py item by item. What there is to judge, and what a
judge is worth, is in storage (feedback/unjudged.py, feedback/calibration.py).
"""
