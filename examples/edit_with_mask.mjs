// An edit with a mask by the official Node SDK: only what is transparent in the mask is changed.
//
// Run:  npm install openai
//       node edit_with_mask.mjs room.png mask.png "A cat on the sofa"
//
// Gateway and model come from IMAGEGATE_URL and IMAGEGATE_MODEL.

import { createReadStream } from "node:fs";

import OpenAI from "openai";

const [image, mask, prompt] = process.argv.slice(2);
const client = new OpenAI({
  baseURL: (process.env.IMAGEGATE_URL ?? "http://127.0.0.1:8000") + "/v1",
  apiKey: process.env.IMAGEGATE_KEY ?? "not-needed", // where the gateway asks for one
});
const edited = await client.images.edit({
  model: process.env.IMAGEGATE_MODEL ?? "gpt-image-2",
  image: createReadStream(image), // sent while it is read; the gateway tells its type from its bytes
  mask: createReadStream(mask),
  prompt,
  response_format: "url",
});
console.log(edited.data[0].url);
