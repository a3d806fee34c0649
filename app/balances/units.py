"""What can be counted and priced. The classes are disjoint: a token is in one of them."""

# Tokens. By OpenAI's usage objects `prompt_tokens` is the sum of the input classes and
# `completion_tokens` that of the output classes, of which reasoning is one.
INPUT = "input"
CACHED_INPUT = "cached_input"
OUTPUT = "output"
REASONING = "reasoning"
AUDIO_INPUT = "audio_input"
AUDIO_OUTPUT = "audio_output"
IMAGE_INPUT = "image_input"
IMAGE_OUTPUT = "image_output"
TRAINING = "training"
TOKENS = (
    INPUT,
    CACHED_INPUT,
    OUTPUT,
    REASONING,
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    TRAINING,
)

# Everything that is not a token.
IMAGE = "image"
SECOND = "second"
CHARACTER = "character"
REQUEST = "request"
# Calls of tools that the upstream runs itself; of the code interpreter its sessions.
WEB_SEARCH = "web_search"
FILE_SEARCH = "file_search"
CODE_INTERPRETER = "code_interpreter"

UNITS = (*TOKENS, IMAGE, SECOND, CHARACTER, REQUEST, WEB_SEARCH, FILE_SEARCH, CODE_INTERPRETER)
