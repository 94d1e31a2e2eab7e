"""Review queues: which traces people shall look at, who looks, and what came of it."""
