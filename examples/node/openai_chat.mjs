// The official `openai` client for Node: chat completions, and a response in the background.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = process.env.PLATO_MODEL ?? "HuggingFaceTB/SmolLM2-135M-Instruct";
const question = "How do I choose my first road bicycle?";
const messages = [{ role: "user", content: question }];
const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "any",
});

const Bicycle = z.object({
  kind: z.enum(["road", "mountain", "city"]),
  // Small models find no end without a bound.
  brand: z.string().max(20),
  price: z.number().int().min(100).max(9999),
});

console.log("--- ask");
const answer = await client.chat.completions.create({ model, messages, max_tokens: 100 });
console.log(answer.choices[0].message.content);

console.log("--- stream");
const stream = client.chat.completions.stream({ model, messages, max_tokens: 100 });
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
console.log();

console.log("--- plan");
const planned = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 150,
  plato: { mode: "plato", headings: true },
});
console.log(planned.choices[0].message.content);
console.log(planned.plato.graph.nodes.map((node) => node.title));

console.log("--- structured answer");
const parsed = await client.chat.completions.parse({
  model,
  messages,
  response_format: zodResponseFormat(Bicycle, "bicycle"),
});
console.log(parsed.choices[0].message.parsed);

console.log("--- tools offered");
const price = {
  type: "function",
  function: {
    name: "price",
    description: "The price of a bicycle.",
    parameters: z.toJSONSchema(Bicycle.pick({ kind: true })),
    parse: JSON.parse,
    function: ({ kind }) => (kind === "road" ? "1200 EUR" : "600 EUR"),
  },
};
const runner = client.chat.completions.runTools({ model, messages, tools: [price] });
console.log(await runner.finalContent());

console.log("--- tool demanded");
// The runner calls the function, and ends there.
const choice = { type: "function", function: { name: "price" } };
const caller = client.chat.completions.runTools({ model, messages, tools: [price], tool_choice: choice });
console.log(await caller.finalFunctionToolCall(), await caller.finalFunctionToolCallResult());

console.log("--- background");
let response = await client.responses.create({
  model,
  input: question,
  max_output_tokens: 100,
  background: true,
});
while (response.status === "in_progress") {
  await new Promise((resolve) => setTimeout(resolve, 200));
  response = await client.responses.retrieve(response.id);
}
console.log(response.status, response.output_text);
