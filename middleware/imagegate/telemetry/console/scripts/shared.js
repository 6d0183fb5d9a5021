"use strict";
// Everything that is shown is made of text nodes: what clients or providers write is never markup.
const $ = (id) => document.getElementById(id);
const base = location.pathname.replace(/\/console$/, "");
const api = base + document.documentElement.dataset.prefix;
const MOST = 200;
const state = { instance: "", after: 0, shown: new Map(), models: new Map(), sending: null, open: null, asked: false, requests: new Map() };

function el(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const text = (value) => typeof value === "string" ? value : JSON.stringify(value);
const seconds = (value) => value === null || value === undefined ? "–" : value < 10 ? value.toFixed(2) + " s" : value.toFixed(1) + " s";
const bytes = (value) => value < 1024 ? value + " B" : value < 1048576 ? (value / 1024).toFixed(1) + " KiB" : (value / 1048576).toFixed(1) + " MiB";
const some = (count, word) => count + " " + word + (count === 1 ? "" : "s");

const openDialog = () => document.querySelector("dialog[open]");

function headers(more) {
  const key = sessionStorage.getItem("imagegate.key");
  return { ...(key ? { authorization: "Bearer " + key } : {}), ...more };
}
