"""Short hand-written answers about LLM serving and Wheelpit, each with its wordings."""

SERVING: list[tuple[list[str], str]] = [
    (
        [
            *("How does vLLM schedule requests?", "Explain scheduling in vLLM."),
            *("How does the scheduler of vLLM work?", "How does vLLM's scheduler work?"),
            *("How are requests scheduled in vLLM?", "Explain vLLM's scheduler."),
        ],
        "vLLM schedules one step at a time. In every step the scheduler has a budget of tokens. "
        "It first gives each running request the tokens it still has to compute, usually one new "
        "token, and then takes requests from the waiting queue while budget and KV cache blocks "
        "last. A long prompt is split into chunks that fit the budget. When no free blocks are "
        "left, a running request is preempted and computed again later.",
    ),
    (
        [
            *(
                "What does the scheduler of an LLM engine do?",
                "What is a scheduler in LLM serving?",
            ),
            *("What does a scheduler do?", "Why does an LLM server need a scheduler?"),
            *("How does an LLM engine schedule requests?", "How are requests scheduled?"),
        ],
        "The scheduler decides before every step which requests run and how many tokens of each "
        "are computed. It looks at the token budget of the step, the free blocks of the KV cache "
        "and the order of the waiting queue. It starts new requests when there is room and "
        "preempts running ones when memory runs out.",
    ),
    (
        [
            *("What is continuous batching?", "Explain continuous batching."),
            *("How does continuous batching work?", "What does continuous batching mean?"),
            *("Why is continuous batching useful?", "Can you explain continuous batching?"),
            *("Tell me about continuous batching.", "Define continuous batching."),
        ],
        "Continuous batching means that requests join and leave the running batch between steps, "
        "instead of waiting for the whole batch to finish. When one sequence reaches its end, its "
        "place is given to a waiting request at the next step. This keeps the GPU busy, raises "
        "throughput and lets short requests finish early.",
    ),
    (
        [
            *("What is static batching?", "Why is static batching slow?"),
            *("What is wrong with static batching?", "Compare static and continuous batching."),
        ],
        "With static batching a batch of requests starts together, and its results are only free "
        "when the longest one has finished. Short requests wait for long ones and their places in "
        "the batch stand empty. Continuous batching avoids this by replacing finished requests "
        "after every step.",
    ),
    (
        [
            *("What is paged attention?", "What is PagedAttention?", "Explain paged attention."),
            *("Explain PagedAttention.", "How does paged attention work?"),
            *("How does PagedAttention save memory?", "Why is paged attention useful?"),
        ],
        "Paged attention stores the keys and values of a sequence in blocks of fixed size that "
        "need not be next to each other in memory. A block table says which blocks belong to "
        "which sequence, as a page table does in an operating system. Memory is taken block by "
        "block as the sequence grows, so almost none of it is wasted, and blocks can be shared by "
        "requests with the same prefix.",
    ),
    (
        [
            *("What is a block table?", "What is a block table in vLLM?", "Explain block tables."),
            *("What is a KV cache block?", "Why is the KV cache split into blocks?"),
        ],
        "The KV cache is split into blocks, each with room for the keys and values of a fixed "
        "number of tokens, for instance 16. The block table of a sequence lists its blocks in "
        "order. Blocks can be anywhere in memory, so there is no need to reserve room for the "
        "longest possible answer.",
    ),
    (
        [
            *("What is chunked prefill?", "Explain chunked prefill.", "Why chunked prefill?"),
            *("How does chunked prefill work?", "Why is chunked prefill useful?"),
            *("What does chunked prefill do?", "Tell me about chunked prefill."),
        ],
        "Chunked prefill splits a long prompt into chunks that are computed over several steps. "
        "Each step mixes a chunk of a prompt with the next tokens of the requests that are "
        "already running. So a long prompt does not stop everybody else's answers, and the time "
        "between two tokens stays short.",
    ),
    (
        [
            *(
                "What is prefix caching?",
                "Explain prefix caching.",
                "How does prefix caching work?",
            ),
            *("Why is prefix caching useful?", "What does prefix caching do?"),
            *("Tell me about prefix caching.", "What is automatic prefix caching?"),
        ],
        "Prefix caching keeps the KV cache blocks of earlier requests. When a new request starts "
        "with the same tokens, for instance the same system message, its blocks are found by "
        "their hash and used again, and only the rest of the prompt is computed. It shortens the "
        "time to first token but does not change the answer.",
    ),
    (
        [
            *("What is TTFT?", "What is time to first token?", "What does TTFT mean?"),
            *("Explain TTFT.", "Define time to first token.", "What does TTFT measure?"),
            *("Why does time to first token matter?",),
        ],
        "TTFT is the time to first token: how long it takes from sending a request until its "
        "first token arrives. It includes waiting in the queue and computing the prompt. Users "
        "feel it as the delay before an answer begins.",
    ),
    (
        [
            *("What is ITL?", "What is inter-token latency?", "What does ITL mean?"),
            *("Explain inter-token latency.", "Define inter-token latency."),
        ],
        "ITL is the inter-token latency: the time between two tokens of the same answer that "
        "follow each other. It says how smoothly a streamed answer flows. Large batches and long "
        "prompts that are not split make it worse.",
    ),
    (
        [
            *("What is TPOT?", "What is time per output token?", "What does TPOT mean?"),
            *("Explain TPOT.", "Define time per output token."),
        ],
        "TPOT is the time per output token: the time from the first token of an answer to its "
        "last, divided by the number of tokens after the first. It is the average speed at which "
        "an answer is written.",
    ),
    (
        [
            *("What is end-to-end latency?", "What is E2E latency?", "What does E2E mean?"),
            *("What is request latency?", "Define request latency."),
        ],
        "End-to-end latency is the time from sending a request until its last token has arrived. "
        "It is the time to first token plus the time for all the tokens after it.",
    ),
    (
        [
            *("What is throughput?", "What is throughput in LLM serving?", "Define throughput."),
            *("What is the difference between latency and throughput?", "Latency or throughput?"),
        ],
        "Throughput is how much work a server finishes in a second, in requests or in tokens. "
        "Latency is how long one request takes. A larger batch usually raises throughput and also "
        "latency, so a server has to find a balance.",
    ),
    (
        [
            *("What is goodput?", "Explain goodput.", "What does goodput mean?"),
            *("What is goodput in LLM serving?",),
        ],
        "Goodput is the number of requests in a second that are finished within their latency "
        "targets. Requests that come too late count for throughput but not for goodput.",
    ),
    (
        [
            *("What is preemption?", "What is preemption in LLM serving?", "Explain preemption."),
            *("Why does vLLM preempt requests?", "What happens when a request is preempted?"),
            *("How does preemption work?", "What does preempt mean?"),
        ],
        "Preemption takes the KV cache blocks of a running request away, because there is no free "
        "memory left for the others. The request goes back to the waiting queue. When there is "
        "room again, its prompt and the tokens it has already produced are computed again, and it "
        "goes on where it stopped.",
    ),
    (
        [
            *("Why stream tokens?", "Why do servers stream tokens?", "What is token streaming?"),
            *("Why is streaming useful?", "Explain token streaming.", "Why should I stream?"),
            *("What is streaming in text generation?",),
        ],
        "A language model produces its answer token by token. Streaming sends each token to the "
        "client as soon as it is there, so the user can start to read after the time to first "
        "token instead of waiting for the whole answer. The total time stays the same, but the "
        "wait feels much shorter, and the user can stop a bad answer early.",
    ),
    (
        [
            *("What are server-sent events?", "What is SSE?", "How do server-sent events work?"),
            *("Explain server-sent events.", "How are tokens streamed over HTTP?"),
        ],
        "Server-sent events are a simple way to stream text over one HTTP response. Each event is "
        "a line that starts with `data:` followed by an empty line. An OpenAI-compatible server "
        "sends one event with JSON for each piece of the answer and ends with `data: [DONE]`.",
    ),
    (
        [
            *("What is an AsyncLLMEngine?", "What is AsyncLLMEngine?", "Explain AsyncLLMEngine."),
            *("What does AsyncLLMEngine do?", "How do I use AsyncLLMEngine?"),
            *("How does AsyncLLMEngine work?",),
        ],
        "`AsyncLLMEngine` is the asynchronous front end of an LLM engine. Its `generate()` method "
        "takes a prompt, sampling parameters and a request id and returns an async iterator of "
        "outputs:\n\n```python\nasync for output in engine.generate(prompt, params, request_id):\n"
        "    print(output.outputs[0].text)\n```\n\nMany requests can run at the same time; the "
        "engine batches them.",
    ),
    (
        [
            *("What is the difference between LLM and AsyncLLMEngine?",),
            *("When should I use AsyncLLMEngine?", "LLM or AsyncLLMEngine?"),
            *("What is the LLM class?", "What is offline inference?"),
        ],
        "`LLM` is for offline work: you give it a list of prompts and it returns when all answers "
        "are finished. `AsyncLLMEngine` is for online serving: requests come at any moment, each "
        "is streamed while it is generated, and each can be cancelled.",
    ),
    (
        [
            *("What is Wheelpit?", "Tell me about Wheelpit.", "What does Wheelpit do?"),
            *("Explain Wheelpit.", "What is wheelpit", "Describe Wheelpit.", "Why Wheelpit?"),
        ],
        "Wheelpit is an async online LLM serving engine in Python. It takes requests at any "
        "moment, queues, schedules and batches them on one model, and streams every result back. "
        "Its Python API is vLLM's and its HTTP API is OpenAI's. It runs on GPUs, and offline on a "
        "laptop's CPU with a built-in model.",
    ),
    (
        [
            *("How do I use Wheelpit?", "How do I start Wheelpit?", "How do I run Wheelpit?"),
            *("How do I serve a model with Wheelpit?", "How do I start a Wheelpit server?"),
            *("How do I get started with Wheelpit?",),
        ],
        "Start the server with `wheelpit serve`, then send it requests with any OpenAI client, or "
        "talk to it with `wheelpit chat`. In Python, use the `LLM` class for a list of prompts and "
        "`AsyncLLMEngine` for online serving. The built-in model needs no download.",
    ),
    (
        [
            *("What does requests are durable, engines are disposable mean?",),
            *("Explain requests are durable, engines are disposable.",),
            *("What is special about Wheelpit?", "What sets Wheelpit apart?"),
            *("How does Wheelpit survive crashes?", "What happens when the engine crashes?"),
            *("What happens to my request if the engine process dies?",),
        ],
        "In Wheelpit requests are durable and engines are disposable. The front end keeps every "
        "prompt and every token it has delivered; the engine process only computes. If the engine "
        "crashes, the front end starts a new one and submits the prompt with the delivered tokens "
        "as a continuation. So every request ends exactly once, and every token is delivered "
        "exactly once.",
    ),
    (
        [
            *("Why does Wheelpit use two processes?", "Which processes does Wheelpit have?"),
            *("How is Wheelpit built?", "What is the architecture of Wheelpit?"),
            *("How does Wheelpit work?",),
        ],
        "Wheelpit has two processes. The front end handles HTTP, tokenizing and streaming with "
        "asyncio. The engine process schedules and computes the steps on the model. So the GIL "
        "does not let HTTP traffic delay a step, and a crash of the engine does not end the "
        "requests, because the front end keeps them.",
    ),
    (
        [
            *("Is Wheelpit compatible with vLLM?", "Which API does Wheelpit have?"),
            *("Is Wheelpit compatible with OpenAI?", "Can I use the OpenAI client with Wheelpit?"),
            *("What is the API of Wheelpit?",),
        ],
        "Wheelpit's Python API follows vLLM: `LLM`, `AsyncLLMEngine`, `AsyncEngineArgs`, "
        "`SamplingParams` and `RequestOutput`. Its HTTP API follows OpenAI, so the OpenAI client "
        "works when you give it the server's address as `base_url`.",
    ),
    (
        [
            *("Does Wheelpit need a GPU?", "Can Wheelpit run on a CPU?", "Can I run you on a CPU?"),
            *("Does Wheelpit work offline?", "Do I need a GPU for Wheelpit?"),
        ],
        "No GPU is needed. Wheelpit runs on a laptop's CPU, offline, with its built-in model. For "
        "large models and many users a GPU is much faster.",
    ),
    (
        [
            *("Wheelpit or vLLM?", "How does Wheelpit differ from vLLM?"),
            *("What is the difference between Wheelpit and vLLM?",),
        ],
        "Both serve language models with continuous batching and share a Python API. Wheelpit is "
        "a small engine that also runs offline on a CPU and that keeps requests alive when the "
        "engine process crashes. vLLM supports far more models and kinds of hardware.",
    ),
    (
        [
            *("What is a step?", "What is a step in an LLM engine?", "What happens in one step?"),
            *("What does an LLM engine do in a step?", "Explain the engine step."),
        ],
        "A step is one pass of the engine: schedule, build the inputs, execute the model, sample, "
        "update. Every running request moves forward in each step, usually by one token.",
    ),
    (
        [
            *("What is the KV cache?", "What is a KV cache?", "Explain the KV cache."),
            *("What is a KV cache for?", "Why do LLM servers cache keys and values?"),
            *("How does the KV cache work?", "Tell me about the KV cache."),
        ],
        "The KV cache keeps the attention keys and values of all earlier tokens of a sequence, so "
        "that each new token only needs its own to be computed. Without it the whole text would "
        "be computed again for every token. It grows with the length of the text and the number "
        "of requests, and often limits how many requests run at once.",
    ),
    (
        [
            *("How large is the KV cache?", "How much memory does the KV cache need?"),
            *("How do I compute the size of the KV cache?", "What is the size of a KV cache?"),
        ],
        "For each token the KV cache holds a key and a value in every layer: 2 x layers x KV heads "
        "x head size x bytes per number. Multiply this by the number of tokens of all running "
        "requests. Grouped-query attention and an FP8 cache make it smaller.",
    ),
    (
        [
            *("What is prefill?", "What is the prefill phase?", "Explain prefill."),
            *("What does prefill mean?", "What happens during prefill?"),
        ],
        "Prefill is the computation of the prompt. All its tokens are processed together, which "
        "fills the KV cache and gives the first token of the answer. It is limited by arithmetic, "
        "and its length decides most of the time to first token.",
    ),
    (
        [
            *("What is decode?", "What is the decode phase?", "What is decoding?"),
            *("What happens during decode?", "Explain the decode phase."),
        ],
        "Decode is the phase in which the model produces the answer, one token per step for each "
        "request. Every step reads all the weights and the KV cache, so it is limited by memory "
        "bandwidth. Batching many requests shares the cost of reading the weights.",
    ),
    (
        [
            *("What is the difference between prefill and decode?", "Compare prefill and decode."),
            *("Prefill or decode: which is slower?", "How do prefill and decode differ?"),
        ],
        "Prefill computes the whole prompt at once and is limited by arithmetic. Decode produces "
        "one token per step and is limited by memory bandwidth. Prefill decides the time to first "
        "token, decode the time between tokens.",
    ),
    (
        [
            *("Why is batching important?", "Why do LLM servers batch requests?"),
            *("Why batch requests?", "What is batching?", "How does batching help?"),
        ],
        "In the decode phase every step must read all the weights of the model from memory, "
        "whether it computes one token or a hundred. Batching several requests shares that cost, "
        "so throughput rises almost with the size of the batch until arithmetic or the KV cache "
        "becomes the limit.",
    ),
    (
        [
            *("What is a token?", "What is a token in a language model?", "Explain tokens."),
            *("What are tokens?", "What does token mean?"),
        ],
        "A token is a piece of text that a language model reads or writes: a word, a part of a "
        "word, a mark or a space with letters. A tokenizer turns text into token ids and back. In "
        "English a token has about four characters.",
    ),
    (
        [
            *("What is a tokenizer?", "What does a tokenizer do?", "Explain tokenizers."),
            *("What is byte-level BPE?", "How does a tokenizer work?"),
        ],
        "A tokenizer splits text into tokens and gives each its number. Byte-level BPE starts from "
        "single bytes and merges the pairs that are most frequent in the training text, so it can "
        "represent any text without unknown tokens.",
    ),
    (
        [
            *(
                "What is a chat template?",
                "What does a chat template do?",
                "Explain chat templates.",
            ),
            *("What is ChatML?",),
        ],
        "A chat template turns a list of messages into the one text that the model was trained to "
        "read, with marks for who says what. ChatML, for instance, writes each message between "
        "`<|im_start|>` with the role and `<|im_end|>`.",
    ),
    (
        [
            *(
                "What are sampling parameters?",
                "What is SamplingParams?",
                "Explain SamplingParams.",
            ),
            *("Which sampling parameters are there?", "What does SamplingParams do?"),
        ],
        "Sampling parameters say how the next token is chosen and when an answer ends: "
        "`temperature`, `top_p`, `top_k`, `min_p`, penalties, `max_tokens`, `stop` and `seed`. "
        "Each request has its own:\n\n```python\nparams = SamplingParams(temperature=0.7, "
        "top_p=0.9, max_tokens=100)\n```",
    ),
    (
        [
            *("What is temperature?", "What does temperature do?", "Explain temperature."),
            *("What is the temperature of a language model?", "What does temperature zero mean?"),
            *("Which temperature should I use?",),
        ],
        "Temperature controls how random sampling is. The logits are divided by it before the "
        "softmax: a low temperature prefers the likeliest tokens, a high one spreads the choice. "
        "Zero means greedy sampling: always the likeliest token.",
    ),
    (
        [
            *("What is top-p sampling?", "What is nucleus sampling?", "What does top_p do?"),
            *("Explain top-p.", "What is top_p?"),
        ],
        "Top-p sampling, also called nucleus sampling, keeps the smallest set of likeliest tokens "
        "whose probabilities add up to at least p, and samples among them. With p = 1 all tokens "
        "are kept.",
    ),
    (
        [
            *("What is top-k sampling?", "What does top_k do?", "Explain top-k.", "What is top_k?"),
        ],
        "Top-k sampling keeps only the k likeliest tokens and samples among them. With k = 1 it is "
        "greedy sampling.",
    ),
    (
        [
            *("What is greedy decoding?", "What is greedy sampling?", "Explain greedy decoding."),
        ],
        "Greedy decoding always takes the token with the highest probability. It is repeatable, "
        "but small models tend to repeat themselves with it. Set the temperature to 0 for it.",
    ),
    (
        [
            *("What does the seed do?", "How do I get the same answer twice?", "What is a seed?"),
            *("How do I make sampling reproducible?",),
        ],
        "A seed fixes the random numbers of sampling, so that the same request gives the same "
        "answer again. In Wheelpit the noise depends only on the request's seed, the position and "
        "the token, not on the other requests in the batch.",
    ),
    (
        [
            *("What is speculative decoding?", "Explain speculative decoding."),
            *("How does speculative decoding work?", "Why is speculative decoding faster?"),
        ],
        "In speculative decoding a small draft model, or a simple rule, guesses several tokens "
        "ahead, and the large model checks them all in one step. Tokens that it agrees with are "
        "kept, so one step of the large model can give several tokens. The answers follow the "
        "same distribution as without it.",
    ),
    (
        [
            *("What is quantization?", "Explain quantization.", "Why quantize a model?"),
            *("What does quantization do?", "What is quantization of a language model?"),
        ],
        "Quantization stores the weights of a model, and sometimes its activations, with fewer "
        "bits, for instance 8 or 4 instead of 16. The model needs less memory and decoding reads "
        "fewer bytes, at the cost of some precision.",
    ),
    (
        [
            *("What is tensor parallelism?", "Explain tensor parallelism."),
            *("How does tensor parallelism work?", "How does tensor parallelism split a model?"),
        ],
        "Tensor parallelism splits the matrices of every layer over several GPUs. Each GPU "
        "computes its part and the parts are added up by an all-reduce. It makes a model fit that "
        "is too large for one GPU and shortens each step, but needs fast links between the GPUs.",
    ),
    (
        [
            *("What is pipeline parallelism?", "Explain pipeline parallelism."),
            *("How does pipeline parallelism work?",),
        ],
        "Pipeline parallelism gives each GPU a part of the layers. A batch passes from one GPU to "
        "the next. It needs less communication than tensor parallelism and works across nodes, "
        "but one request does not become faster.",
    ),
    (
        [
            *("What is data parallelism in serving?", "What is data parallelism?"),
            *("Explain data parallelism.",),
        ],
        "With data parallelism each GPU holds a whole copy of the model and serves its own "
        "requests. It raises throughput, not the speed of a single request. A load balancer "
        "spreads the requests over the copies.",
    ),
    (
        [
            *("What is a CUDA graph?", "What are CUDA graphs?", "Why use CUDA graphs?"),
            *("What is a CUDA graph for?", "Explain CUDA graphs."),
        ],
        "A CUDA graph records a sequence of GPU kernels once and replays it with a single launch. "
        "In decoding each kernel is short, so launching them one by one from Python takes longer "
        "than running them; a graph removes that overhead.",
    ),
    (
        [
            *("What is LoRA?", "Explain LoRA.", "How does LoRA work?", "What is a LoRA adapter?"),
        ],
        "LoRA is low-rank adaptation: a model is fine-tuned by adding the product of two small "
        "matrices to some of its weights. Only these are trained. A server can keep one base "
        "model and many adapters, and choose an adapter for each request.",
    ),
    (
        [
            *("What is flash attention?", "What is FlashAttention?", "Explain flash attention."),
            *("How does FlashAttention work?", "Why is FlashAttention fast?"),
        ],
        "FlashAttention computes attention block by block in the fast memory of the GPU, keeping "
        "a running maximum and sum for the softmax. The large matrix of attention scores is never "
        "written to the GPU's main memory, so it is faster and needs less memory, with the same "
        "result.",
    ),
    (
        [
            *("What is grouped-query attention?", "What is GQA?", "Explain GQA."),
            *("Explain grouped-query attention.",),
        ],
        "In grouped-query attention several query heads share one key and value head. The KV "
        "cache becomes smaller by that factor, so more requests fit into memory and decoding "
        "reads fewer bytes.",
    ),
    (
        [
            *("What is backpressure?", "What is admission control?", "How do I handle overload?"),
            *("What happens when a server is overloaded?", "Why refuse requests?"),
        ],
        "When more requests come than a server can finish, the queue grows and every request "
        "becomes late. Admission control refuses requests early, with an error such as HTTP 429 "
        "or 503, when there is no room or their deadline cannot be met. So the accepted requests "
        "stay fast.",
    ),
    (
        [
            *("How do I cancel a request?", "How do I abort a request?", "What does abort do?"),
            *("What happens when a client disconnects?", "How does cancellation work in serving?"),
        ],
        "Cancel the task that reads the stream, close the connection or call `abort(request_id)`. "
        "The engine then drops the request at the next step and frees its KV cache blocks, so "
        "that no work is done for an answer that nobody reads.",
    ),
    (
        [
            *("What is a request queue?", "What is FCFS?", "What is first come, first served?"),
            *("What is head-of-line blocking?", "What is priority scheduling?"),
        ],
        "New requests wait in a queue until there is room. First come, first served takes them in "
        "the order of arrival, so one long request can hold up the short ones behind it: this is "
        "head-of-line blocking. Priority scheduling takes the most urgent request first.",
    ),
    (
        [
            *("What is gpu_memory_utilization?", "What does gpu_memory_utilization do?"),
            *("Which gpu_memory_utilization should I use?",),
        ],
        "`gpu_memory_utilization` is the fraction of the GPU's memory that the engine may use, "
        "between 0 and 1. What the weights and activations leave of it becomes KV cache, so a "
        "higher value lets more requests run at once.",
    ),
    (
        [
            *("What is max_model_len?", "What does max_model_len do?", "Explain max_model_len."),
        ],
        "`max_model_len` is the largest number of tokens of a request, prompt and answer together. "
        "A smaller value saves memory; a longer prompt is refused.",
    ),
    (
        [
            *("What is max_num_seqs?", "What does max_num_seqs do?", "Explain max_num_seqs."),
        ],
        "`max_num_seqs` is the largest number of sequences that run in one step. A higher value "
        "raises throughput while there is KV cache for it, and makes each step longer.",
    ),
    (
        [
            *("What is max_num_batched_tokens?", "What does max_num_batched_tokens do?"),
            *("What is a token budget?",),
        ],
        "`max_num_batched_tokens` is the token budget of a step: how many tokens are computed at "
        "most, over all requests. A small value keeps the time between tokens short, a large one "
        "gives a better time to first token and more throughput.",
    ),
    (
        [
            *(
                "What is a finish reason?",
                "What does finish_reason mean?",
                "What is finish_reason?",
            ),
        ],
        "The finish reason says why an answer ended: `stop` when the model ended it or a stop "
        "string was found, `length` when `max_tokens` was reached, `abort` when it was cancelled.",
    ),
    (
        [
            *("What does max_tokens do?", "What is max_tokens?", "Why is my answer cut off?"),
        ],
        "`max_tokens` is the largest number of tokens an answer may have. When it is reached, the "
        "answer is cut and the finish reason is `length`. Set a higher value for longer answers.",
    ),
    (
        [
            *("What is vLLM?", "Tell me about vLLM.", "What does vLLM do?", "Explain vLLM."),
            *("What is vLLM used for?", "Why is vLLM fast?"),
        ],
        "vLLM is a fast and easy-to-use library for LLM inference and serving. It manages the KV "
        "cache with PagedAttention, batches incoming requests continuously, and offers an "
        "OpenAI-compatible server and the Python classes `LLM` and `AsyncLLMEngine`.",
    ),
    (
        [
            *("What is LLM serving?", "What is an LLM server?", "What is an inference engine?"),
            *("Explain LLM serving.", "What does an LLM serving engine do?"),
        ],
        "LLM serving means running a language model for many users at once. A serving engine takes "
        "requests over an API, turns text into tokens, batches the requests on the hardware, keeps "
        "their KV cache and streams the answers back.",
    ),
    (
        [
            *("What is a language model?", "What is an LLM?", "How does a language model work?"),
            *("What is a large language model?",),
        ],
        "A language model gives a probability for each possible next token of a text. To write an "
        "answer it picks a token, appends it and repeats. A large language model, or LLM, does "
        "this with billions of parameters trained on much text.",
    ),
    (
        [
            *("What is an OpenAI-compatible server?", "What is the OpenAI API?"),
            *("What is the chat completions endpoint?", "How do I call /v1/chat/completions?"),
        ],
        "An OpenAI-compatible server answers the same HTTP requests as OpenAI's API, above all "
        "`POST /v1/chat/completions` with a model and a list of messages. Programs written for "
        "that API work with it when they are given another base URL.",
    ),
    (
        [
            *("What is disaggregated prefilling?", "Why separate prefill and decode?"),
            *("Explain disaggregated prefill.",),
        ],
        "Disaggregated prefilling runs prefill and decode in different engine instances and moves "
        "the KV cache from one to the other. Long prompts then do not disturb running answers, and "
        "time to first token and inter-token latency can be tuned separately.",
    ),
    (
        [
            *("What is a deadline?", "What is the difference between a deadline and a timeout?"),
            *("How do deadlines work in Wheelpit?",),
        ],
        "A deadline is a point in time by which a request must be finished; a timeout is a length "
        "of time. Wheelpit keeps deadlines with its requests, so that waiting, restarts and "
        "retries all count, and says clearly when one was missed.",
    ),
]
