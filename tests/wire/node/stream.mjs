// A stream read with the official Node SDK, as a program would do it.
//
//   node stream.mjs generate|edit BASE_URL MODEL IMAGE
//
// Prints as JSON the events, each with SHA-256 of its picture, and the error that ended them.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import OpenAI, { toFile } from "openai";

const [operation, baseURL, model, image] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 2 });
const prompt = "Make it blue";

const operations = {
  generate: () => client.images.generate({ model, prompt, stream: true, partial_images: 1 }),
  edit: async () =>
    client.images.edit({
      model,
      prompt,
      stream: true,
      image: await toFile(readFileSync(image), "a.png", { type: "image/png" }),
    }),
};

const answer = { events: [] };
try {
  for await (const event of await operations[operation]()) {
    const bytes = Buffer.from(event.b64_json, "base64");
    answer.events.push([event.type, createHash("sha256").update(bytes).digest("hex")]);
  }
} catch (error) {
  answer.error = { name: error.constructor.name, status: error.status, code: error.code, text: String(error) };
}
console.log(JSON.stringify(answer));
