"""How much of everything a pattern may have: bounds on time and memory, far above any use."""

LARGEST_FILE = 2**20  # bytes
LONGEST_SCALAR = 4096  # characters
DEEPEST = 24  # lists and mappings within each other
MOST_NODES = 50_000  # keys and values
MOST_MISTAKES = 1000  # collected of one file

BLOCKS = (16, 32, 64, 128)
MOST_HEADS = MOST_LAYERS = 4096
MOST_SHARDS = 65536  # heads * layers
MOST_WORK = 2**22  # see `Entry.work`: about 5 s, 200 MB
MOST_HEAD_DIM = 512
SOFTCAP_FROM, SOFTCAP_TO = 0.001, 1_000_000  # kernels divide by it and multiply, in fp32
SCALE_FROM, SCALE_TO = 0.0001, 1_000_000  # in fp32, and written without an exponent
MOST_BLOCKS = 2**27
MOST_TOKENS = 2**31 - 1
MOST_CHUNK = 4096  # blocks: a proof looks at each column of a chunk
MOST_STRIDES = 256  # of one entry
MOST_INDICES = 4096  # rows or columns of `globals`
MOST_RANDOM = 256
LARGEST_SEED = 2**31 - 1
LARGEST_MASK = 64 * 2**20  # bytes

LONGEST_NAME = 64
LONGEST_ABOUT = 1000
