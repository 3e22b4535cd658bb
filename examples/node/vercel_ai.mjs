// The AI SDK: the provider for compatible servers, and OpenAI's own, which uses responses.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const name = process.env.PLATO_MODEL ?? "HuggingFaceTB/SmolLM2-135M-Instruct";
const baseURL = process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1";
const apiKey = process.env.OPENAI_API_KEY ?? "any";
const plato = createOpenAICompatible({
  name: "plato",
  baseURL,
  apiKey,
  // Without it, schemas are not sent.
  supportsStructuredOutputs: true,
});
const model = plato(name);
const prompt = "How do I choose my first road bicycle?";

const Bicycle = z.object({
  kind: z.enum(["road", "mountain", "city"]),
  // Small models find no end without a bound.
  brand: z.string().max(20),
  price: z.number().int().min(100).max(9999),
});

console.log("--- ask");
console.log((await generateText({ model, prompt, maxOutputTokens: 100 })).text);

console.log("--- stream");
for await (const text of streamText({ model, prompt, maxOutputTokens: 100 }).textStream) {
  process.stdout.write(text);
}
console.log();

console.log("--- plan");
const planned = plato(`${name}:plato`);
console.log((await generateText({ model: planned, prompt, maxOutputTokens: 150 })).text);

console.log("--- structured answer: generateObject");
console.log((await generateObject({ model, prompt, schema: Bicycle })).object);

console.log("--- structured answer: Output.object");
const output = Output.object({ schema: Bicycle });
console.log((await generateText({ model, prompt, output })).output);

const price = tool({
  description: "The price of a bicycle.",
  inputSchema: Bicycle.pick({ kind: true }),
  execute: ({ kind }) => (kind === "road" ? "1200 EUR" : "600 EUR"),
});

console.log("--- tools offered");
console.log((await generateText({ model, prompt, tools: { price }, maxOutputTokens: 100 })).text);

console.log("--- tool demanded");
const called = await generateText({ model, prompt, tools: { price }, toolChoice: "required" });
console.log(called.toolCalls[0].input, called.toolResults[0].output);

console.log("--- responses");
const openai = createOpenAI({ baseURL, apiKey });
const messages = [{ role: "user", content: prompt }];
const asked = { model: openai(name), messages, maxOutputTokens: 100 };
const first = await generateText(asked);
console.log(first.text);
console.log((await generateObject({ model: openai(name), prompt, schema: Bicycle })).object);

console.log("--- responses: second turn");
// It refers to the first answer by its id.
messages.push(...first.response.messages, { role: "user", content: "And a used one?" });
console.log((await generateText(asked)).text);

console.log("--- responses: stream");
for await (const text of streamText(asked).textStream) {
  process.stdout.write(text);
}
console.log();
