-- Pairs judged here, for the win rates of versions: few among all that was ever said.
CREATE INDEX counted_pairs ON counted (sequence) WHERE kind = 'pair' AND source IN ('human', 'simulated');
