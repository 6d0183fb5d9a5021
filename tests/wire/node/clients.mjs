// One edit by each of several clients of Node, as programs would make them.
//
//   node clients.mjs ORIGIN KEY MODEL IMAGE
//
// Prints as JSON what became of each: null, or the error as the client shows it.

import { readFileSync } from "node:fs";
import { basename } from "node:path";

import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import OpenAI, { AzureOpenAI, toFile } from "openai";

const [origin, apiKey, model, path] = process.argv.slice(2);
const prompt = "Make it blue";
const content = readFileSync(path);
const baseURL = `${origin}/v1`;
const image = () => toFile(content, basename(path), { type: "image/png" });

async function withFetch() {
  const form = new FormData();
  form.set("model", model);
  form.set("prompt", prompt);
  form.set("image", new File([content], basename(path), { type: "image/png" }));
  form.set("mask", new File([], ""));
  const headers = { authorization: `Bearer ${apiKey}` };
  const reply = await fetch(`${baseURL}/images/edits`, { method: "POST", body: form, headers });
  if (!reply.ok) throw new Error(await reply.text());
}

const clients = {
  "openai-node": async () =>
    new OpenAI({ baseURL, apiKey, maxRetries: 0 }).images.edit({ model, prompt, image: await image() }),
  "azure-node": async () =>
    new AzureOpenAI({ endpoint: origin, apiKey, apiVersion: "2025-04-01-preview", maxRetries: 0 }).images.edit({
      model,
      prompt,
      image: await image(),
    }),
  "ai-sdk": () =>
    generateImage({
      model: createOpenAI({ baseURL, apiKey }).image(model),
      prompt: { text: prompt, images: [content] },
      maxRetries: 0,
    }),
  fetch: withFetch,
};

const results = {};
for (const [name, edit] of Object.entries(clients)) {
  try {
    await edit();
    results[name] = null;
  } catch (error) {
    results[name] = String(error);
  }
}
console.log(JSON.stringify(results));
