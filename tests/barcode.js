// Reads the barcode of the test pattern from a <video>; the geometry is told in broadcaster/source/barcode.py.
// Returns {frame, capturedMs, ageMs} or null when the picture has none (or there is no picture).
(video) => {
  const [width, height] = [video?.videoWidth, video?.videoHeight];
  if (!width || video.readyState < 2) return null;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const now = Date.now();

  const middle = (start, length, size) => {
    const first = Math.floor((start + length / 4) * size);
    return [first, Math.max(1, Math.floor((start + (length * 3) / 4) * size) - first)];
  };
  const luma = (row, column) => {
    const [x, w] = middle(0.02 + column * 0.03, 0.03, width);
    const [y, h] = middle(0.83 + row * 0.05, 0.05, height);
    const { data } = context.getImageData(x, y, w, h);
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    return sum / (w * h);
  };
  const cells = [0, 1, 2].map((row) => Array.from({ length: 32 }, (_, column) => luma(row, column)));
  const [darkest, brightest] = [Math.min(...cells.flat()), Math.max(...cells.flat())];
  if (brightest - darkest < 60) return null;
  // Multiplication instead of shifts: JavaScript's bitwise operators know 32 bits only, and signed ones.
  const number = (row, from, to) =>
    cells[row].slice(from, to).reduce((value, cell) => value * 2 + (cell > (darkest + brightest) / 2 ? 1 : 0), 0);
  const words = [number(0, 0, 16), number(0, 16, 32), number(1, 16, 32), number(2, 0, 16), number(2, 16, 32)];
  const check = words.reduce((sum, word) => (sum * 31 + word) % 4093, 2748);
  if (number(1, 0, 4) !== 0b1010 || number(1, 4, 16) !== check) return null;
  const capturedMs = (words[2] * 65536 + words[3]) * 65536 + words[4];
  return { frame: words[0] * 65536 + words[1], capturedMs, ageMs: now - capturedMs };
};
