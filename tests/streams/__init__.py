"""What the cores of streaming are fed with: recorded conversations, a fuzzer and its corpus."""
