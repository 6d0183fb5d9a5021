// One call of the official Node SDK, or of the AI SDK, as a program would make it.
//
//   node edit.mjs OPERATION BASE_URL MODEL MASK IMAGE...
//
// Prints as JSON what came back: SHA-256 of each picture, or the error as the SDK shows it.

import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { basename } from "node:path";

import OpenAI, { toFile } from "openai";

const [operation, baseURL, model, mask, ...images] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const prompt = "Make it blue";

const TYPES = { png: "image/png", jpg: "image/jpeg", webp: "image/webp" };
const file = (path) => toFile(readFileSync(path), basename(path), { type: TYPES[path.split(".").pop()] });
const files = () => Promise.all(images.map(file));

const operations = {
  generate: () => client.images.generate({ model, prompt, n: 2, size: "1024x1024" }),
  toFile: async () => client.images.edit({ model, prompt, image: await file(images[0]) }),
  list: async () => client.images.edit({ model, prompt, image: [await file(images[0])] }),
  mask: async () => client.images.edit({ model, prompt, image: await files(), mask: await file(mask) }),
  several: async () => client.images.edit({ model, prompt, image: await files(), n: 1 }),
  stream: () => client.images.edit({ model, prompt, image: createReadStream(images[0]) }),
  streams: () => client.images.edit({ model, prompt, image: images.map((path) => createReadStream(path)) }),
  maskedStream: () =>
    client.images.edit({ model, prompt, image: createReadStream(images[0]), mask: createReadStream(mask) }),
  variation: async () => client.images.createVariation({ model, image: await file(images[0]) }),
  ai: () => generateWithAI(prompt),
  aiEdit: () => generateWithAI({ text: prompt, images: images.map((path) => readFileSync(path)) }),
};

async function generateWithAI(prompt) {
  const { createOpenAI } = await import("@ai-sdk/openai"); // here, because it takes its time
  const { generateImage } = await import("ai");
  return generateImage({ model: createOpenAI({ baseURL, apiKey: "any" }).image(model), prompt, maxRetries: 0 });
}

async function bytesOf(image) {
  if (image.uint8Array) return image.uint8Array;
  if (image.b64_json) return Buffer.from(image.b64_json, "base64");
  return Buffer.from(await (await fetch(image.url)).arrayBuffer());
}

let answer;
try {
  const reply = await operations[operation]();
  const pictures = await Promise.all((reply.data ?? reply.images).map(bytesOf));
  answer = {
    pictures: pictures.map((bytes) => ({
      sha256: createHash("sha256").update(bytes).digest("hex"),
      size: bytes.length,
      isPNG: Buffer.from(bytes.slice(0, 8)).toString("latin1") === "\x89PNG\r\n\x1a\n",
    })),
  };
} catch (error) {
  answer = { error: { name: error.constructor.name, status: error.status, param: error.param, text: String(error) } };
}
console.log(JSON.stringify(answer));
