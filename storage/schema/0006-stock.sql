-- What there is to train on (storage/feedback/stock.py), counted as ratings are: how many different answers each prompt
-- has been taught of, and the sums by split. All of it follows from `counted` and from demonstrations.
CREATE TABLE taught_answers (  -- the different answers that ratings teach of
    prompt INTEGER NOT NULL,
    answer INTEGER NOT NULL,  -- as in `counted`
    ratings INTEGER NOT NULL,
    PRIMARY KEY (prompt, answer)
) STRICT, WITHOUT ROWID;
CREATE TABLE imitable_texts (  -- the different texts of demonstrations and edits
    prompt INTEGER NOT NULL,
    text TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (prompt, text)
) STRICT, WITHOUT ROWID;
CREATE TABLE lessons (
    prompt INTEGER PRIMARY KEY,
    rated INTEGER NOT NULL DEFAULT 0,     -- different answers that ratings teach of
    scores INTEGER NOT NULL DEFAULT 0,    -- scores of the overall quality
    imitable INTEGER NOT NULL DEFAULT 0   -- different texts to imitate
) STRICT;
CREATE TABLE tally_of_lessons (
    split TEXT PRIMARY KEY,
    rated INTEGER NOT NULL,
    compared INTEGER NOT NULL,  -- prompts with two rated answers
    scored INTEGER NOT NULL,    -- prompts with a score
    imitable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO taught_answers
    SELECT prompt, answer, count(*) FROM (
        SELECT prompt, answer FROM counted WHERE answer != 0
        UNION ALL SELECT prompt, beside FROM counted WHERE beside != 0) GROUP BY 1, 2;
INSERT INTO imitable_texts
    SELECT prompt, text, count(*) FROM (
        SELECT prompts.sequence AS prompt, samples.text FROM samples JOIN prompts ON prompts.id = prompt_id
        WHERE samples.origin = 'demonstration'
        UNION ALL SELECT prompt, text FROM counted JOIN ratings ON ratings.sequence = counted.sequence
        WHERE counted.kind = 'edit')
    WHERE trim(text, char(32, 9, 10, 11, 12, 13)) != '' GROUP BY 1, 2;
INSERT INTO lessons
    SELECT prompt, sum(rated), sum(scores), sum(imitable) FROM (
        SELECT prompt, count(*) AS rated, 0 AS scores, 0 AS imitable FROM taught_answers GROUP BY 1
        UNION ALL SELECT prompt, 0, count(*), 0 FROM counted WHERE kind = 'score' AND answer != 0 GROUP BY 1
        UNION ALL SELECT prompt, 0, 0, count(*) FROM imitable_texts GROUP BY 1) GROUP BY 1;
INSERT INTO tally_of_lessons
    SELECT split, sum(rated), sum(rated > 1), sum(scores > 0), sum(imitable)
    FROM lessons JOIN prompts ON prompts.sequence = prompt GROUP BY 1;

CREATE TRIGGER counted_teach AFTER INSERT ON counted WHEN NEW.answer != 0
BEGIN
    INSERT INTO taught_answers VALUES (NEW.prompt, NEW.answer, 1) ON CONFLICT DO UPDATE SET ratings = ratings + 1;
    INSERT INTO taught_answers SELECT NEW.prompt, NEW.beside, 1 WHERE NEW.beside != 0
        ON CONFLICT DO UPDATE SET ratings = ratings + 1;
    INSERT INTO lessons (prompt, scores) SELECT NEW.prompt, 1 WHERE NEW.kind = 'score'
        ON CONFLICT DO UPDATE SET scores = scores + 1;
END;
CREATE TRIGGER counted_teach_no_more AFTER DELETE ON counted WHEN OLD.answer != 0
BEGIN
    UPDATE taught_answers SET ratings = ratings - 1 WHERE prompt = OLD.prompt AND answer = OLD.answer;
    UPDATE taught_answers SET ratings = ratings - 1 WHERE prompt = OLD.prompt AND answer = OLD.beside;
    UPDATE lessons SET scores = scores - 1 WHERE prompt = OLD.prompt AND OLD.kind = 'score';
END;
CREATE TRIGGER answers_are_taught AFTER INSERT ON taught_answers
BEGIN
    INSERT INTO lessons (prompt, rated) VALUES (NEW.prompt, 1) ON CONFLICT DO UPDATE SET rated = rated + 1;
END;
CREATE TRIGGER answers_are_taught_again AFTER UPDATE ON taught_answers WHEN (OLD.ratings > 0) != (NEW.ratings > 0)
BEGIN
    UPDATE lessons SET rated = rated + (NEW.ratings > 0) - (OLD.ratings > 0) WHERE prompt = NEW.prompt;
END;

CREATE TRIGGER edits_are_imitable AFTER INSERT ON counted WHEN NEW.kind = 'edit'
BEGIN
    INSERT INTO imitable_texts
        SELECT NEW.prompt, text, 1 FROM ratings
        WHERE sequence = NEW.sequence AND trim(text, char(32, 9, 10, 11, 12, 13)) != ''
        ON CONFLICT DO UPDATE SET times = times + 1;
END;
CREATE TRIGGER edits_are_imitable_no_more AFTER DELETE ON counted WHEN OLD.kind = 'edit'
BEGIN
    UPDATE imitable_texts SET times = times - 1
        WHERE prompt = OLD.prompt AND text = (SELECT text FROM ratings WHERE sequence = OLD.sequence);
END;
CREATE TRIGGER demonstrations_are_imitable AFTER INSERT ON samples
WHEN NEW.origin = 'demonstration' AND trim(NEW.text, char(32, 9, 10, 11, 12, 13)) != ''
BEGIN
    INSERT INTO imitable_texts SELECT sequence, NEW.text, 1 FROM prompts WHERE id = NEW.prompt_id
        ON CONFLICT DO UPDATE SET times = times + 1;
END;
CREATE TRIGGER texts_are_imitable AFTER INSERT ON imitable_texts
BEGIN
    INSERT INTO lessons (prompt, imitable) VALUES (NEW.prompt, 1) ON CONFLICT DO UPDATE SET imitable = imitable + 1;
END;
CREATE TRIGGER texts_are_imitable_again AFTER UPDATE ON imitable_texts WHEN (OLD.times > 0) != (NEW.times > 0)
BEGIN
    UPDATE lessons SET imitable = imitable + (NEW.times > 0) - (OLD.times > 0) WHERE prompt = NEW.prompt;
END;

CREATE TRIGGER lessons_are_tallied AFTER INSERT ON lessons
BEGIN
    INSERT INTO tally_of_lessons
        SELECT split, NEW.rated, NEW.rated > 1, NEW.scores > 0, NEW.imitable FROM prompts WHERE sequence = NEW.prompt
        ON CONFLICT DO UPDATE SET rated = rated + excluded.rated, compared = compared + excluded.compared,
                                  scored = scored + excluded.scored, imitable = imitable + excluded.imitable;
END;
CREATE TRIGGER lessons_are_tallied_again AFTER UPDATE ON lessons
BEGIN
    UPDATE tally_of_lessons SET
        rated = rated + NEW.rated - OLD.rated, compared = compared + (NEW.rated > 1) - (OLD.rated > 1),
        scored = scored + (NEW.scores > 0) - (OLD.scores > 0), imitable = imitable + NEW.imitable - OLD.imitable
        WHERE split = (SELECT split FROM prompts WHERE sequence = NEW.prompt);
END;
CREATE TRIGGER lessons_are_moved AFTER UPDATE OF split ON prompts WHEN OLD.split != NEW.split
BEGIN
    UPDATE tally_of_lessons SET
        rated = tally_of_lessons.rated - lessons.rated, compared = compared - (lessons.rated > 1),
        scored = scored - (lessons.scores > 0), imitable = tally_of_lessons.imitable - lessons.imitable
        FROM lessons WHERE lessons.prompt = NEW.sequence AND tally_of_lessons.split = OLD.split;
    INSERT INTO tally_of_lessons
        SELECT NEW.split, rated, rated > 1, scores > 0, imitable FROM lessons WHERE prompt = NEW.sequence
        ON CONFLICT DO UPDATE SET rated = rated + excluded.rated, compared = compared + excluded.compared,
                                  scored = scored + excluded.scored, imitable = imitable + excluded.imitable;
END;
