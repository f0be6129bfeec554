"""Sixteen questions that become 36 to 39 tokens each under SmolLM2's chat template, 37 on average."""

QUESTIONS = (
    "Why is the sky blue?",
    "How do bees make honey?",
    "What is a prime number?",
    "Name three uses of copper.",
    "How does a sail boat turn?",
    "Why do leaves fall in autumn?",
    "Tell me a story of a lighthouse.",
    "What makes bread rise in the oven?",
    "Explain tides to a child of six.",
    "How do I repot a small plant?",
    "What did people eat in ancient Rome?",
    "Write a short poem about rain.",
    "Why do cats sleep so much?",
    "Give me advice on learning chess.",
    "How far away is the moon?",
    "Describe a market in the morning.",
)
