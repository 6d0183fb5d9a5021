// Calls of the official Node SDK, or of the AI SDK, as a program would make them.
//
// Each line of the standard input is one of them, as JSON: [OPERATION, BASE_URL, MODEL, MASK, IMAGE, ...].
// Prints as JSON, on a line, what came back: SHA-256 of each picture, or the error as the SDK shows it.

import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { basename } from "node:path";
import { createInterface } from "node:readline";

import OpenAI, { toFile } from "openai";

const prompt = "Make it blue";

const TYPES = { png: "image/png", jpg: "image/jpeg", webp: "image/webp" };
const file = (path) => toFile(readFileSync(path), basename(path), { type: TYPES[path.split(".").pop()] });

function operationsOf(baseURL, model, mask, images) {
  const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
  const files = () => Promise.all(images.map(file));
  return {
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
    ai: () => generateWithAI(baseURL, model, prompt),
    aiEdit: () => generateWithAI(baseURL, model, { text: prompt, images: images.map((path) => readFileSync(path)) }),
  };
}

async function generateWithAI(baseURL, model, prompt) {
  const { createOpenAI } = await import("@ai-sdk/openai"); // here, because it takes its time
  const { generateImage } = await import("ai");
  return generateImage({ model: createOpenAI({ baseURL, apiKey: "any" }).image(model), prompt, maxRetries: 0 });
}

async function bytesOf(image) {
  if (image.uint8Array) return image.uint8Array;
  if (image.b64_json) return Buffer.from(image.b64_json, "base64");
  return Buffer.from(await (await fetch(image.url)).arrayBuffer());
}

async function answerTo([operation, baseURL, model, mask, ...images]) {
  try {
    const reply = await operationsOf(baseURL, model, mask, images)[operation]();
    const pictures = await Promise.all((reply.data ?? reply.images).map(bytesOf));
    return {
      pictures: pictures.map((bytes) => ({
        sha256: createHash("sha256").update(bytes).digest("hex"),
        size: bytes.length,
        isPNG: Buffer.from(bytes.slice(0, 8)).toString("latin1") === "\x89PNG\r\n\x1a\n",
      })),
    };
  } catch (error) {
    return { error: { name: error.constructor.name, status: error.status, param: error.param, text: String(error) } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answerTo(JSON.parse(line))));
}
