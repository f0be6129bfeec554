"""What is learned: models, rewards, algorithms and the pipeline that turns ratings into new weights.

Imports `storage`; knows no screen.
"""
