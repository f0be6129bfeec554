-- Before this step all prompts that nobody had marked were training prompts, and each job kept some back by rank. What
-- may have been learned from stays: what is linked to a job, and what was there when a policy last began to learn. The
-- demo names the split of each of its prompts. `text_fraction` is storage.splits.fraction.

UPDATE prompts SET split = 'held-out'
WHERE split = 'train' AND text_fraction(text_key) < 0.15 AND text_key NOT IN (
    SELECT text_key FROM prompts
    WHERE origin = 'demo' OR created_at <= (SELECT max(started_at) FROM jobs WHERE kind != 'reward')
    UNION
    SELECT prompts.text_key FROM job_ratings
    JOIN ratings ON ratings.id = job_ratings.rating_id
    JOIN samples ON samples.id IN (ratings.sample_id, ratings.other_sample_id)
    JOIN prompts ON prompts.id = samples.prompt_id
);
